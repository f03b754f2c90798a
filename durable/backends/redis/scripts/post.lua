-- Append a message to the inbox, and wake the execution if its state is within reach.
local x, unread, seen_ids, ready, rung, later, index, timers, closed, watched, outbox, listening = unpack(KEYS)
local id, message_id, kind, reach, packed, data, max_unread, heard, token, is_look = unpack(ARGV)

local state, inbox_seq, available, started, status, created, rank, crashes, deadline, has_watchers, workflow, attempt,
  finished, gates, held, listens = unpack(call('HMGET', x,
    'st', 'iq', 'av', 'sa', 'su', 'ca', 'rk', 'cr', 'dl', 'wc', 'wf', 'at', 'fa', 'gt', 'hd', 'ls'))
gates, held = gates or nil, held and held ~= '' and held
if not state then return {'-'} end
-- What it listened for is for it while it listens still, since that very letter.
if heard and string.sub(call('HGET', listening, heard) or '', 2) ~= token then return {'-'} end
if call('SISMEMBER', seen_ids, 'i' .. message_id) == 1 then return {'=', state} end
if state == 'c' and reach ~= 'c' then return {'x'} end
inbox_seq = tonumber(inbox_seq or 0)
if call('ZCARD', unread) >= tonumber(max_unread) then return {'!'} end

local now = clock()
local is_delayed = state == 'r' and (held or tonumber(available) > now)
local closes = kind == 'x' and state == 'r' and not started
local wakes = not closes
  and (state == 'p' or state == 'c' or (reach ~= 'p' and (state == 'b' or is_delayed)))
local stamp = wide(created) .. id
local fields = {'iq', int(inbox_seq + 1)}
local watchers = {}
if closes and has_watchers then
  watchers = call('HGETALL', watched)
  call('XLEN', outbox)
end
if gates and (closes or wakes) then call('XLEN', outbox) end
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
local doorbell, told, letter = '', {}, nil
if closes then
  end_unclaimed(fields, id, now, status, created, data, deadline, index, closed, timers)
  if #watchers > 0 then
    told = tell_watchers(id, 'x', workflow, attempt or 1, data, watchers, watched, outbox)
    put(fields, 'wc', '')
  end
  if held == 'o' then
    call('ZREM', timers, id .. '\0__gates')
  elseif gates then
    letter = write_to_gates(outbox, 'e', id, '', '', '0', '', gates)
    put(fields, 'ep', letter[1])
  end
  if listens then
    stop_listening(id, call('HGET', x, 'cop'), listening, outbox, told)
    put(fields, 'ls', '')
  end
elseif wakes and held then
  doorbell, letter = pass_by(fields, id, rank, crashes, now, held, gates, ready, timers, outbox)
elseif wakes then
  if state == 'c' then
    call('ZREM', closed, status .. wide(finished) .. id)
    call('ZREM', index, 's' .. status .. stamp)
    call('ZADD', index, 0, 'sp' .. stamp)
    put(fields, 'su', 'p', 'rs', '', 'er', '', 'co', '', 'dl', '')
  end
  doorbell, letter = make_ready(fields, id, rank, crashes, now, now, gates, false, not started, ready, rung, later, timers,
    outbox)
end
if letter then told[#told + 1] = letter end
call('HSET', x, unpack(fields))
return {'p', inbox_seq + 1, doorbell, closes and 1 or 0, told}
