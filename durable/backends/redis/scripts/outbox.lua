-- The oldest letters of an outbox, from a place on, and the time.
local now = clock()
return {now, call('XRANGE', KEYS[1], ARGV[1], '+', 'COUNT', ARGV[2])}
