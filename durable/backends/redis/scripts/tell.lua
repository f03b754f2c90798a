-- Append the ends of targets to the inbox of one watcher, each once for each time that it began to watch.
local x, unread, seen_ids, ready, rung, outbox = unpack(KEYS)
local id = ARGV[1]

local state, inbox_seq, known, rank, crashes, gates = unpack(call('HMGET', x, 'st', 'iq', 'cop', 'rk', 'cr', 'gt'))
local marks, seen = {}, {}
for i = 2, #ARGV, 4 do
  put(marks, 'o' .. ARGV[i], 'w' .. ARGV[i + 2])
end
for i, is_member in ipairs(call('SMISMEMBER', seen_ids, unpack(marks))) do
  seen[marks[i]] = is_member == 1
end
local answers, new, entries = {}, {}, {}
local seq, now = tonumber(inbox_seq or 0), clock()
for i = 2, #ARGV, 4 do
  local token, incarnation, message_id, packed = 'o' .. ARGV[i], ARGV[i + 1], 'w' .. ARGV[i + 2], ARGV[i + 3]
  local answer = 'p'
  if not state or state == 'c' or known ~= incarnation then
    answer = '-'
  elseif seen[token] or seen[message_id] then
    answer = '='
  else
    seen[token], seen[message_id] = true, true
    seq = seq + 1
    put(new, token, message_id)
    put(entries, seq, int(seq) .. ' ' .. int(now) .. ' ' .. packed)
  end
  answers[#answers + 1] = answer
end
if #new == 0 then return {answers, '', {}} end
sound(unread, ready)
if gates then
  sound(rung)
  call('XLEN', outbox)
end

call('SADD', seen_ids, unpack(new))
call('ZADD', unread, unpack(entries))
local doorbell, letter, fields = '', nil, {'iq', int(seq)}
if state == 'p' then
  doorbell, letter = make_ready(fields, id, rank, crashes, now, now, gates or nil, false, false, ready, rung, nil, nil,
    outbox)
end
call('HSET', x, unpack(fields))
return {answers, doorbell, {letter}}
