-- The schedules that are due, the longest first; and when the next one is.
local rows, due = unpack(KEYS)
local limit = ARGV[1]

local now = clock()
local found = call('ZRANGEBYSCORE', due, '-inf', now, 'LIMIT', 0, limit)
for i, id in ipairs(found) do found[i] = {id, call('HGET', rows, id)} end
return {now, found, call('ZRANGEBYSCORE', due, '(' .. int(now), '+inf', 'WITHSCORES', 'LIMIT', 0, 1)}
