-- Let a step listen no more for events of a name, unless a later letter of its has come before this one.
local listeners, index = unpack(KEYS)
local listener, token = unpack(ARGV)

local known = call('HGET', listeners, listener)
if not known then return 0 end
local its_token, topic, shape = string.match(known, '^(%S+) %d+ %a (%S+) (%S+) %d+\n')
its_token = its_token or known
if is_later(its_token, token) then return 0 end
sound(index)

call('HDEL', listeners, listener)
if topic then call('ZREM', index, topic .. listener, shape .. listener) end
return 1
