-- What the namespace was made with; made now if it is new. One of an older schema becomes one of this: all that it
-- holds means the same, what is new has keys of its own, and what its index lacks is put into it when it is opened. Who knows the older one only is refused from now on.
local meta = KEYS[1]
local schema, partitions = unpack(ARGV)
if call('EXISTS', meta) == 0 then call('HSET', meta, 'schema', schema, 'partitions', partitions) end
local found = call('HGET', meta, 'schema')
if found and string.match(found, '^%d+$') and tonumber(found) < tonumber(schema) then
  call('HSET', meta, 'schema', schema)
end
return call('HMGET', meta, 'schema', 'partitions')
