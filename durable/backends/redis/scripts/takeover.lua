-- Make ready again what a dead worker owns, if it owns it still by the same claim.
local x, owned, ready = unpack(KEYS)
local id, place = unpack(ARGV)

local state, worker, owned_at, crashes, rank = unpack(call('HMGET', x, 'st', 'wk', 'oa', 'cr', 'rk'))
sound(owned, ready)
if state ~= 'o' or string.format('%04x', #worker) .. worker .. wide(owned_at) .. id ~= place then
  call('ZREM', owned, place)
  return ''
end
local now = clock()
crashes = int(tonumber(crashes or 0) + 1)
local doorbell = bell(rank, now, id, crashes)
call('ZREM', owned, place)
call('ZADD', ready, 0, doorbell)
call('HSET', x, 'st', 'r', 'av', int(now), 'cr', crashes)
return doorbell
