-- Correct an answer that is kept for repeats: by now it is known which execution one of its starts has led to.
local answers = KEYS[1]
local field, op, number, id = unpack(ARGV)

local ids = {}
for each in string.gmatch(call('HGET', answers, field) or '', '[^%z]+') do ids[#ids + 1] = each end
if ids[1] ~= op then return 0 end
ids[tonumber(number) + 1] = id
call('HSET', answers, field, table.concat(ids, '\0'))
return 1
