-- Store a schedule, if its version is the one that the caller has read; its starts go into the outbox.
local rows, ids, due, answers, outbox = unpack(KEYS)
local id, ver, op, next_at, data = unpack(ARGV, 1, 5)

local has_ver, by = string.match(call('HGET', rows, id) or '0 - -\n', '^(%d+) %S+ (%S+)\n')
if by == op then return {'=', has_ver, call('HGET', answers, id) or ''} end
if has_ver ~= ver then return {'x'} end
sound(ids, due)
call('HLEN', answers)
call('XLEN', outbox)

has_ver = int(tonumber(ver) + 1)
call('HSET', rows, id, table.concat({has_ver, ' ', next_at, ' ', op, '\n', data}))
call('ZADD', ids, 0, id)
if next_at == '-' then
  call('ZREM', due, id)
else
  call('ZADD', due, next_at, id)
end
local started, letters = {op}, {}
for i = 6, #ARGV, 2 do
  started[#started + 1] = ARGV[i]
  local fields = {'k', 'S', 'p', answers, 'f', id, 'h', op, 'n', int(i / 2 - 2), 'd', ARGV[i + 1]}
  letters[#letters + 1] = {call('XADD', outbox, '*', unpack(fields)), fields}
end
call('HSET', answers, id, table.concat(started, '\0'))
return {'n', has_ver, table.concat(started, '\0'), letters}
