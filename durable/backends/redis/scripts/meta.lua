-- What the namespace was made with; made now if it is new.
local meta = KEYS[1]
local schema, partitions = unpack(ARGV)
if call('EXISTS', meta) == 0 then call('HSET', meta, 'schema', schema, 'partitions', partitions) end
return call('HMGET', meta, 'schema', 'partitions')
