-- Append the end of a target to the inbox of one watcher, once for each time that it began to watch.
local x, unread, seen_ids, ready = unpack(KEYS)
local id, token, incarnation, message_id, packed = unpack(ARGV)

local state, inbox_seq, known, rank, crashes = unpack(call('HMGET', x, 'st', 'iq', 'cop', 'rk', 'cr'))
if not state or state == 'c' or known ~= incarnation then return {'-'} end
local seen = call('SMISMEMBER', seen_ids, 'o' .. token, 'w' .. message_id)
if seen[1] == 1 or seen[2] == 1 then return {'='} end
local seq, now = tonumber(inbox_seq or 0) + 1, clock()
sound(unread, ready)

call('SADD', seen_ids, 'o' .. token, 'w' .. message_id)
call('ZADD', unread, seq, int(seq) .. ' ' .. int(now) .. ' ' .. packed)
local doorbell = ''
if state == 'p' then
  doorbell = bell(rank, now, id, crashes)
  call('ZADD', ready, 0, doorbell)
  call('HSET', x, 'iq', int(seq), 'st', 'r', 'av', int(now))
else
  call('HSET', x, 'iq', int(seq))
end
return {'p', doorbell}
