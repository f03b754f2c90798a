-- Store an event, if its id is new among those of its name: its starts, and the word to who listens for it, go into the
-- outbox. With a cursor it is stored already, and those listeners are told who stand behind that in the index.
local log, events, about, listeners, index, name_of, names, outbox = unpack(KEYS)
local name, id, op, marks, tail, cursor = unpack(ARGV, 1, 6)
local MOST = 256

local known = call('HGET', about, 'm' .. id)
local seq, at
if cursor == '' then
  if known then
    return {string.match(known, '^%S+') == op and '=' or 'd', call('HGET', about, 's' .. id) or '',
      call('HGET', about, 'w' .. id) or ''}
  end
  local last_seq, last_at = unpack(call('HMGET', name_of, 'seq', 'at'))
  seq = int(tonumber(last_seq or 0) + 1)
  -- The instants of a log never go back, so that it can be searched for one.
  at = int(math.max(clock(), tonumber(last_at or 0)))
else
  if not known then return {'-'} end
  seq, at, marks = string.match(known, '^%S+ (%d+) (%d+) (.*)$')
  tail = call('HGET', events, id)
end
sound(log, index, names)
call('HLEN', events)
call('XLEN', outbox)

-- Whom it concerns: under its topics all, and under the shapes that its sender did not know who may look.
local prefixes = {}
for mark in string.gmatch(marks, 'T%x+') do prefixes[#prefixes + 1] = mark end
for _, mark in ipairs(call('HKEYS', name_of)) do
  if string.sub(mark, 1, 1) == 'U' and not string.find(marks, mark, 1, true) then prefixes[#prefixes + 1] = mark end
end
table.sort(prefixes)
local words, changed, gone, waiting, is_told = {}, {}, {}, {}, {}
local room, last, behind = MOST, '', string.sub(cursor, 1, 33)
for _, prefix in ipairs(prefixes) do
  if room > 0 and prefix >= behind then
    local from = prefix == behind and '(' .. cursor or '[' .. prefix
    for _, member in ipairs(call('ZRANGEBYLEX', index, from, '(' .. prefix .. '\255', 'LIMIT', 0, room)) do
      local listener = string.sub(member, 34)
      local known = call('HGET', listeners, listener) or ''
      local token, since, kind, topic, shape, look, rest =
        string.match(known, '^(%S+) (%d+) (%a) (%S+) (%S+) (%d+)\n()')
      room, last = room - 1, member
      if token and tonumber(since) < tonumber(seq) and not is_told[listener] then
        is_told[listener] = true
        if string.sub(prefix, 1, 1) == 'T' and look == '0' then
          put(words, listener, token .. ' ' .. (kind == 'c' and 'c' .. string.sub(known, rest) or 'e'))
          put(changed, listener, token)
          put(gone, topic .. listener, shape .. listener)
          put(waiting, (string.match(listener, '^[^%z]*')))
        else
          -- While it is on its way to who listens that there is an earlier event, this one must not overtake that.
          put(words, listener, token .. ' l')
          put(changed, listener, table.concat({token, since, kind, topic, shape, seq}, ' ') .. '\n')
        end
      end
    end
  end
end

-- From here on nothing can fail.

local letters = {}
local function leave(...)
  letters[#letters + 1] = {call('XADD', outbox, '*', ...), {...}}
end
local started, receipt = {op}, call('HGET', about, 'w' .. id)
if cursor == '' then
  call('HSET', events, id, tail)
  call('HSET', name_of, 'seq', seq, 'at', at)
  call('ZADD', log, at, wide(seq) .. id)
  call('ZADD', names, 'NX', at, name)
  for i = 7, #ARGV, 2 do started[#started + 1] = ARGV[i] end
  call('HSET', about, 'm' .. id, table.concat({op, seq, at, marks}, ' '), 's' .. id, table.concat(started, '\0'))
  for i = 8, #ARGV, 2 do
    leave('k', 'S', 'p', about, 'f', 's' .. id, 'h', op, 'n', int(i / 2 - 3), 'd', ARGV[i])
  end
end
-- The token of who was told stays, so that its letter cannot let it listen again when that comes twice.
if #changed > 0 then call('HSET', listeners, unpack(changed)) end
if #gone > 0 then
  call('ZREM', index, unpack(gone))
  local ids = table.concat(waiting, '\0')
  receipt = receipt and receipt .. '\0' .. ids or ids
  call('HSET', about, 'w' .. id, receipt)
end
if #words > 0 then leave('k', 'H', 'n', name, 'q', seq, 'd', seq .. ' ' .. at .. ' ' .. tail, unpack(words)) end
if room == 0 then leave('k', 'M', 'n', name, 'i', id, 'f', last) end
return {'n', table.concat(started, '\0'), receipt or '', letters}
