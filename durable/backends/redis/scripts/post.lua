-- Append a message to the inbox, and wake the execution if its state is within reach.
local x, unread, seen_ids, ready, rung, later, index, timers, closed, watched, outbox, listening = unpack(KEYS)
local id, message_id, kind, reach, packed, data, max_unread, heard, token, is_look = unpack(ARGV)

local state, inbox_seq, available, started, status, created, rank, crashes, deadline, has_watchers, workflow, attempt,
  finished, listens = unpack(call('HMGET', x,
    'st', 'iq', 'av', 'sa', 'su', 'ca', 'rk', 'cr', 'dl', 'wc', 'wf', 'at', 'fa', 'ls'))
if not state then return {'-'} end
-- What it listened for is for it while it listens still, since that very letter.
if heard and string.sub(call('HGET', listening, heard) or '', 2) ~= token then return {'-'} end
if call('SISMEMBER', seen_ids, 'i' .. message_id) == 1 then return {'=', state} end
if state == 'c' and reach ~= 'c' then return {'x'} end
inbox_seq = tonumber(inbox_seq or 0)
if call('ZCARD', unread) >= tonumber(max_unread) then return {'!'} end

local now = clock()
local is_delayed = state == 'r' and tonumber(available) > now
local closes = kind == 'x' and state == 'r' and not started
local wakes = not closes
  and (state == 'p' or state == 'c' or (reach ~= 'p' and (state == 'b' or is_delayed)))
local stamp = wide(created) .. id
local fields = {'iq', int(inbox_seq + 1)}
local function set(field, value)
  fields[#fields + 1] = field
  fields[#fields + 1] = value
end
local watchers = {}
if closes and has_watchers then
  watchers = call('HGETALL', watched)
  call('XLEN', outbox)
end
listens = closes and listens == '1'
if listens then
  call('HLEN', listening)
  call('XLEN', outbox)
end
if closes or wakes then sound(ready, rung, later, index, closed, timers) end

-- From here on nothing can fail.

if heard and is_look == '' then call('HDEL', listening, heard) end
call('SADD', seen_ids, 'i' .. message_id)
call('ZADD', unread, inbox_seq + 1, int(inbox_seq + 1) .. ' ' .. int(now) .. ' ' .. packed)
if (closes or wakes) and state == 'r' then unready(bell(rank, available, id, crashes), ready, rung, later) end
local doorbell, told = '', {}
if closes then
  for _, field in ipairs({'st', 'c', 'su', 'x', 'er', data, 'fa', int(now)}) do fields[#fields + 1] = field end
  call('ZREM', index, 's' .. status .. stamp)
  call('ZADD', index, 0, 'sx' .. stamp)
  call('ZADD', closed, 0, 'x' .. wide(now) .. id)
  if deadline then call('ZREM', timers, id .. '\0__timeout') end
  if #watchers > 0 then
    told = tell_watchers(id, 'x', workflow, attempt or 1, data, watchers, watched, outbox)
    set('wc', '')
  end
  if listens then
    stop_listening(id, call('HGET', x, 'cop'), listening, outbox, told)
    set('ls', '')
  end
elseif wakes then
  if state == 'c' then
    call('ZREM', closed, status .. wide(finished) .. id)
    call('ZREM', index, 's' .. status .. stamp)
    call('ZADD', index, 0, 'sp' .. stamp)
    for _, field in ipairs({'su', 'p', 'rs', '', 'er', '', 'co', '', 'dl', ''}) do fields[#fields + 1] = field end
  end
  set('st', 'r')
  set('av', int(now))
  doorbell = bell(rank, now, id, crashes)
  call('ZADD', ready, 0, doorbell)
end
call('HSET', x, unpack(fields))
return {'p', inbox_seq + 1, doorbell, closes and 1 or 0, told}
