-- Append the end of a target to the inbox of one watcher, once for each time that it began to watch.
local x, unread, seen_ids, ready, rung, outbox = unpack(KEYS)
local id, token, incarnation, message_id, packed = unpack(ARGV)

local state, inbox_seq, known, rank, crashes, gates = unpack(call('HMGET', x, 'st', 'iq', 'cop', 'rk', 'cr', 'gt'))
if not state or state == 'c' or known ~= incarnation then return {'-'} end
local seen = call('SMISMEMBER', seen_ids, 'o' .. token, 'w' .. message_id)
if seen[1] == 1 or seen[2] == 1 then return {'='} end
local seq, now = tonumber(inbox_seq or 0) + 1, clock()
sound(unread, ready)
if gates then
  sound(rung)
  call('XLEN', outbox)
end

call('SADD', seen_ids, 'o' .. token, 'w' .. message_id)
call('ZADD', unread, seq, int(seq) .. ' ' .. int(now) .. ' ' .. packed)
local doorbell, letter, fields = '', nil, {'iq', int(seq)}
if state == 'p' then
  doorbell, letter = make_ready(fields, id, rank, crashes, now, now, gates or nil, false, false, ready, rung, nil, nil,
    outbox)
end
call('HSET', x, unpack(fields))
return {'p', doorbell, {letter}}
