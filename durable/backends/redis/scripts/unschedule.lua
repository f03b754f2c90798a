-- Forget a schedule.
local rows, ids, due, answers = unpack(KEYS)
local id = ARGV[1]
sound(ids, due)
call('HLEN', answers)

local was_there = call('HDEL', rows, id)
call('ZREM', ids, id)
call('ZREM', due, id)
call('HDEL', answers, id)
return was_there
