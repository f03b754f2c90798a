-- Let an execution hear what a gate said to it or to a step of it: it has passed the last ('p'), it waits in line ('h'), or it
-- is refused ('f'). The answer 's' is that it asked in another epoch, and 'e' that it is over: what it has is to be given
-- back.
local x, seeking, ready, rung, index, closed, timers, watched, outbox, listening = unpack(KEYS)
local id, step, epoch, what, at, name, refusal = unpack(ARGV)

local state, held, its_epoch, held_at, available, rank, crashes, status, created, deadline, has_watchers, workflow,
  attempt, gates, listens = unpack(call('HMGET', x,
    'st', 'hd', 'ep', 'ha', 'av', 'rk', 'cr', 'su', 'ca', 'dl', 'wc', 'wf', 'at', 'gt', 'ls'))
if not state or state == 'c' then return {'e', '', {}} end
if step ~= '' then
  local sought = call('HGET', seeking, step)
  return {sought and string.match(sought, '^%S+') == epoch and 'o' or 'e', '', {}}
end
if its_epoch ~= epoch then return {'s', '', {}} end
if held ~= 's' then return {'=', '', {}} end
local now = clock()
sound(ready, rung, index, closed, timers)
if what == 'h' then
  -- What an earlier gate said may come later.
  if not held_at or held_at == '' or tonumber(held_at) <= tonumber(at) then call('HSET', x, 'hb', name, 'ha', at) end
  return {'o', '', {}}
end
local watchers = {}
if what == 'f' then
  if has_watchers then watchers = call('HGETALL', watched) end
  call('XLEN', outbox)
  call('HLEN', listening)
end

call('ZREM', rung, bell(rank, available, id, crashes))
if what == 'p' then
  local doorbell = bell(rank, now, id, crashes)
  call('ZADD', ready, 0, doorbell)
  call('HSET', x, 'av', int(now), 'hd', '', 'hb', '', 'ha', '')
  return {'o', doorbell, {}}
end
local fields, told = {}, {}
end_unclaimed(fields, id, now, status, created, refusal, deadline, index, closed, timers)
if #watchers > 0 then
  told = tell_watchers(id, 'x', workflow, attempt or 1, refusal, watchers, watched, outbox)
  put(fields, 'wc', '')
end
if listens == '1' then
  stop_listening(id, call('HGET', x, 'cop'), listening, outbox, told)
  put(fields, 'ls', '')
end
told[#told + 1] = write_to_gates(outbox, 'e', id, '', '', '0', '', gates)
put(fields, 'ep', told[#told][1])
call('HSET', x, unpack(fields))
return {'o', '', told}
