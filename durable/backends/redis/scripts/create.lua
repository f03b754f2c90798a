-- Store an execution, if its id and its key are free; with who watches it from the beginning, if anybody does.
local x, keys, ready, later, timers, index, watched, listening, outbox, holder_x = unpack(KEYS)
local id, op, key, may_reuse, digest, delay, at, timeout, spec, input, rank, prefixes, workflow, watcher, token,
  holder_known = unpack(ARGV, 1, 16)
local AT_LISTENS = 17

local known = call('HMGET', x, 'cop', 'ca', 'ih')
if known[1] == op then return {'c', id, known[2], 0} end
if key ~= '' then
  local holder = call('HGET', keys, key)
  if holder and holder ~= id then
    -- The key of another one: its record was not declared, unless the caller has come back with it.
    if holder ~= holder_known then return {'k', holder} end
    local other = call('HMGET', holder_x, 'cop', 'ca', 'ih', 'st')
    if other[1] == op then return {'c', holder, other[2], 0} end
    if may_reuse == '' or other[4] ~= 'c' then return {'e', holder, other[3] == digest and 1 or 0} end
  end
end
if known[1] then return {'e', id, known[3] == digest and 1 or 0} end

local now = clock()
local available = math.max(now + tonumber(delay), tonumber(at))
local stamp = wide(now) .. id
local entries = {0, 'a' .. stamp, 0, 'sp' .. stamp}
for prefix in string.gmatch(prefixes, '[^\n]+') do
  entries[#entries + 1] = 0
  entries[#entries + 1] = prefix .. stamp
end
local fields = {'st', 'r', 'su', 'p', 'cop', op, 'ca', now, 'av', available, 'ih', digest, 's', spec, 'in', input,
  'rk', rank, 'ix', prefixes, 'wf', workflow}
if key ~= '' then
  fields[#fields + 1] = 'kf'
  fields[#fields + 1] = key
end
local place = available <= now and ready or later
sound(place, index)
if timeout ~= '' then sound(timers) end
if watcher ~= '' then
  call('HLEN', watched)
  fields[#fields + 1] = 'wc'
  fields[#fields + 1] = 1
end

local letters = {}
if ARGV[AT_LISTENS] then
  call('HLEN', listening)
  call('XLEN', outbox)
  fields[#fields + 1] = 'ls'
  fields[#fields + 1] = 1
end

-- From here on nothing can fail.

for i = AT_LISTENS, #ARGV do
  local letter = {'k', 'O', 'i', id, 'c', op, 'd', ARGV[i]}
  local entry = call('XADD', outbox, '*', unpack(letter))
  local field, kind = listening_of(ARGV[i])
  call('HSET', listening, field, kind .. entry)
  letters[#letters + 1] = {entry, letter}
end
if timeout ~= '' then
  local deadline = now + tonumber(timeout)
  fields[#fields + 1] = 'dl'
  fields[#fields + 1] = deadline
  call('ZADD', timers, deadline, id .. '\0__timeout')
end
call('HSET', x, unpack(fields))
if watcher ~= '' then call('HSET', watched, watcher, token) end
if key ~= '' then call('HSET', keys, key, id) end
call('ZADD', index, unpack(entries))
call('ZADD', place, place == ready and 0 or available, bell(rank, available, id))
return {'c', id, now, 1, letters}
