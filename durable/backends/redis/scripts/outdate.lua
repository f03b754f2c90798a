-- Delete the oldest events of a name, if they were stored before an instant.
local log, events, about, _, _, _, names = unpack(KEYS)
local name, before, limit = unpack(ARGV)

local old = call('ZRANGEBYSCORE', log, '-inf', '(' .. before, 'LIMIT', 0, limit)
local oldest = call('ZRANGE', log, #old, #old, 'WITHSCORES')
sound(names)
call('HLEN', events)
call('HLEN', about)

local ids, fields = {}, {}
for i, member in ipairs(old) do
  local id = string.sub(member, 17)
  ids[i] = id
  put(fields, 'm' .. id, 's' .. id, 'w' .. id)
end
many('ZREM', log, old)
many('HDEL', events, ids)
many('HDEL', about, fields)
if oldest[2] then
  call('ZADD', names, oldest[2], name)
else
  call('ZREM', names, name)
end
return #old
