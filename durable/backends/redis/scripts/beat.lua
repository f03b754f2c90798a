-- Hold or end the lease of a worker; leases that ended an hour ago are forgotten.
local leases, infos = unpack(KEYS)
local worker, ttl, info = unpack(ARGV)
local now = clock()
sound(leases)
call('HLEN', infos)
if tonumber(ttl) > 0 then
  call('ZADD', leases, now + tonumber(ttl), worker)
  call('HSET', infos, worker, info)
else
  call('ZREM', leases, worker)
  call('HDEL', infos, worker)
end
local ended = call('ZRANGEBYSCORE', leases, '-inf', now - 3600000, 'LIMIT', 0, 64)
if #ended > 0 then
  call('ZREM', leases, unpack(ended))
  call('HDEL', infos, unpack(ended))
end
return now
