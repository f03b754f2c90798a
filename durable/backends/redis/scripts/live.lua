-- The leases that hold, and the time.
local leases, infos = unpack(KEYS)
local now = clock()
local held = call('ZRANGEBYSCORE', leases, '(' .. int(now), '+inf', 'WITHSCORES')
local found = {}
for i = 1, #held, 2 do
  found[#found + 1] = held[i]
  found[#found + 1] = held[i + 1]
  found[#found + 1] = call('HGET', infos, held[i]) or ''
end
return {now, found}
