-- Append the messages of those of an execution's timers that are due still.
local x, history, mine, timers, unread, ready, rung, later = unpack(KEYS)
local id = ARGV[1]

local state, inbox_seq, available, rank, crashes = unpack(call('HMGET', x, 'st', 'iq', 'av', 'rk', 'cr'))
local now = clock()
inbox_seq = tonumber(inbox_seq or 0)
local due, members, steps, entries, reaches = {}, {}, {}, {}, false
for i = 2, #ARGV do
  local step = ARGV[i]
  local member = id .. '\0' .. step
  local at = call('ZSCORE', timers, member)
  if at and tonumber(at) <= now then
    local seq = '0'
    if step == '__timeout' then
      reaches = true
    else
      steps[#steps + 1] = step
      local record = call('HGET', history, step)
      seq = record and string.match(record, '^.(%d+)') or '0'
    end
    members[#members + 1] = member
    inbox_seq = inbox_seq + 1
    local message_id = 'timer:' .. step .. ':' .. seq
    entries[#entries + 1] = inbox_seq
    entries[#entries + 1] = table.concat({int(inbox_seq), ' ', int(now), ' t', step == '__timeout' and 'b' or 'p',
      ' ', #message_id, ' ', #step, '\n', message_id, step})
  end
end
if #members == 0 then return {'', 0} end
call('SCARD', mine)
sound(unread, ready, rung, later)

many('ZREM', timers, members)
if not state or state == 'c' then return {'', 0} end
many('SREM', mine, steps)
many('ZADD', unread, entries)
local doorbell = ''
if state == 'p' or (reaches and (state == 'b' or (state == 'r' and tonumber(available) > now))) then
  if state == 'r' then unready(bell(rank, available, id, crashes), ready, rung, later) end
  doorbell = bell(rank, now, id, crashes)
  call('ZADD', ready, 0, doorbell)
  call('HSET', x, 'st', 'r', 'av', int(now), 'iq', int(inbox_seq))
else
  call('HSET', x, 'iq', int(inbox_seq))
end
return {doorbell, #members}
