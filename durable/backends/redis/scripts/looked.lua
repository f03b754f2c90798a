-- It has reached who listens that it is to look: later events may be given to it as they are.
local listeners = KEYS[1]
local listener, token, seq = unpack(ARGV)

local head = string.match(call('HGET', listeners, listener) or '', '^(%S+ %d+ %a %S+ %S+) ' .. seq .. '\n')
if not head or string.match(head, '^%S+') ~= token then return 0 end
call('HSET', listeners, listener, head .. ' 0\n')
return 1
