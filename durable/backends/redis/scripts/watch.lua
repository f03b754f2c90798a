-- Register a watcher with an open target; of a closed one, answer how it ended.
local x, watched = unpack(KEYS)
local watcher, token = unpack(ARGV)

local state, status, workflow, attempt = unpack(call('HMGET', x, 'st', 'su', 'wf', 'at'))
if not state then return {'-'} end
if state == 'c' then
  return {'c', status, workflow, attempt or 1, call('HGET', x, status == 'c' and 'rs' or 'er') or ''}
end
call('HLEN', watched)
call('HSET', watched, watcher, token)
call('HSET', x, 'wc', 1)
return {'w'}
