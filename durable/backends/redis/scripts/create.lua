-- Store an execution, if its id and its key are free; with who watches it from the beginning, if anybody does. One of a
-- group joins the pending one instead, if there is one that it may join.
local x, keys, ready, later, timers, index, watched, rung, outbox, groups, joins, listening, history, values, holder_x =
  unpack(KEYS)
local id, op, key, may_reuse, digest, delay, at, timeout, spec, input, rank, prefixes, workflow, watcher, token,
  gates, gives, cause, group, most, size, items, n_records, n_values, holder_known = unpack(ARGV, 1, 25)
n_records, n_values = tonumber(n_records), tonumber(n_values)
local at_values = 25 + 2 * n_records
local AT_LISTENS = at_values + 2 * n_values + 1

local known = call('HMGET', x, 'cop', 'ca', 'ih')
if known[1] == op then return {'c', id, known[2], 0, {}, ''} end
if key ~= '' then
  local holder = call('HGET', keys, key)
  if holder and holder ~= id then
    -- The key of another one: its record was not declared, unless the caller has come back with it.
    if holder ~= holder_known then return {'k', holder} end
    local other = call('HMGET', holder_x, 'cop', 'ca', 'ih', 'st')
    if other[1] == op then return {'c', holder, other[2], 0, {}, ''} end
    if may_reuse == '' or other[4] ~= 'c' then return {'e', holder, other[3] == digest and 1 or 0} end
  end
end
local now = clock()
local pending
if group ~= '' then
  local joined = call('ZRANGEBYLEX', joins, '[o' .. op .. '\0', '(o' .. op .. '\1', 'LIMIT', 0, 1)[1]
  if joined then
    local holder, available = string.match(string.sub(joined, #op + 3), '^(.*)%z(%d+)$')
    return {'j', holder, available, '', {}}
  end
  pending = not known[1] and call('HGET', groups, group)
  if pending and pending ~= holder_known then return {'k', pending} end
end
if known[1] then return {'e', id, known[3] == digest and 1 or 0} end

gates = gates ~= '' and gates or nil
local available = math.max(now + tonumber(delay), tonumber(at))
local stamp = wide(now) .. id
local entries = {0, 'a' .. stamp, 0, 'sp' .. stamp, 0, id_entry(id, now)}
for prefix in string.gmatch(prefixes, '[^\n]+') do
  entries[#entries + 1] = 0
  entries[#entries + 1] = prefix .. stamp
end
sound(ready, later, index)
if gates or group ~= '' then
  sound(rung, timers)
  call('XLEN', outbox)
end
if timeout ~= '' then sound(timers) end
if watcher ~= '' then call('HLEN', watched) end
if n_records > 0 then call('HLEN', history) end
if n_values > 0 then call('HLEN', values) end
if ARGV[AT_LISTENS] then
  call('HLEN', listening)
  call('XLEN', outbox)
end
local letters, begun = {}, ''
if pending then
  local state, started, before, has, created, its_rank, crashes, held, its_gates, its_input, its_cause = unpack(call(
    'HMGET', holder_x, 'st', 'sa', 'av', 'it', 'ca', 'rk', 'cr', 'hd', 'gt', 'in', 'cs'))
  if state == 'r' and not started and tonumber(before) > now then
    local joins_it = size == '' or has + items <= tonumber(size)
    local begins, its_fields = now, {}
    if joins_it and size == '' then
      begins = now + tonumber(delay)
      if most ~= '' then begins = math.max(now, math.min(begins, created + most)) end
      put(its_fields, 'in', input, 'cs', cause)
    elseif joins_it then
      if has + items < tonumber(size) then begins = tonumber(before) end
      its_cause = its_cause or ''
      put(its_fields, 'in', its_input .. '\n' .. input, 'it', int(has + items), 'cs',
        its_cause .. ((its_cause ~= '' and cause ~= '') and '\n' or '') .. cause)
    end
    unready(bell(its_rank, before, pending, crashes), ready, rung, later)
    if held == 'o' then call('ZREM', timers, pending .. '\0__gates') end
    local doorbell, letter = make_ready(its_fields, pending, its_rank, crashes, begins, now, its_gates or nil, false, true,
      ready, rung, later, timers, outbox)
    if letter then letters[1] = letter end
    call('HSET', holder_x, unpack(its_fields))
    if joins_it then
      call('ZADD', joins, 0, table.concat({'o', op, '\0', pending, '\0', int(begins)}), 0, 'i' .. pending .. '\0' .. op)
      return {'j', pending, int(begins), doorbell, letters}
    end
    begun = doorbell
  end
end

local fields = {'su', 'p', 'cop', op, 'ca', now, 'ih', digest, 's', spec, 'in', input, 'rk', rank, 'ix', prefixes, 'wf',
  workflow}
if key ~= '' then put(fields, 'kf', key) end
if cause ~= '' then put(fields, 'cs', cause) end
if watcher ~= '' then put(fields, 'wc', 1) end
if gates then put(fields, 'gt', gates, 'gf', gives) end
if group ~= '' then put(fields, 'jg', group, 'it', items) end
if n_records > 0 then
  local records = {}
  for i = 1, n_records do
    records[2 * i - 1] = ARGV[24 + 2 * i]
    records[2 * i] = 'f' .. int(i) .. ' ' .. ARGV[25 + 2 * i]
  end
  many('HSET', history, records)
  put(fields, 'hq', int(n_records))
end
if n_values > 0 then
  local set = {}
  for i = 1, 2 * n_values do set[i] = ARGV[at_values + i] end
  many('HSET', values, set)
end
if ARGV[AT_LISTENS] then put(fields, 'ls', 1) end
for i = AT_LISTENS, #ARGV do
  local letter = {'k', 'O', 'i', id, 'c', op, 'd', ARGV[i]}
  local entry = call('XADD', outbox, '*', unpack(letter))
  local field, kind = listening_of(ARGV[i])
  call('HSET', listening, field, kind .. entry)
  letters[#letters + 1] = {entry, letter}
end
if timeout ~= '' then
  local deadline = now + tonumber(timeout)
  put(fields, 'dl', deadline)
  call('ZADD', timers, deadline, id .. '\0__timeout')
end
local _, letter = make_ready(fields, id, rank, nil, available, now, gates, false, true, ready, rung, later, timers, outbox)
if letter then letters[#letters + 1] = letter end
call('HSET', x, unpack(fields))
if watcher ~= '' then call('HSET', watched, watcher, token) end
if key ~= '' then call('HSET', keys, key, id) end
if group ~= '' then call('HSET', groups, group, id) end
call('ZADD', index, unpack(entries))
return {'c', id, now, 1, letters, begun}
