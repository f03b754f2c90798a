-- Append the messages of those of an execution's timers that are due still.
local x, history, mine, timers, unread, ready, rung, later, outbox = unpack(KEYS)
local id = ARGV[1]

local state, inbox_seq, available, rank, crashes, started, gates, held =
  unpack(call('HMGET', x, 'st', 'iq', 'av', 'rk', 'cr', 'sa', 'gt', 'hd'))
gates, held = gates or nil, held and held ~= '' and held
local now = clock()
inbox_seq = tonumber(inbox_seq or 0)
local members, steps, entries, reaches, opens = {}, {}, {}, false, false
for i = 2, #ARGV do
  local step = ARGV[i]
  local member = id .. '\0' .. step
  local at = call('ZSCORE', timers, member)
  if at and tonumber(at) <= now then
    members[#members + 1] = member
    if step == '__gates' then
      opens = true
    else
      local seq = '0'
      if step == '__timeout' then
        reaches = true
      else
        steps[#steps + 1] = step
        local record = call('HGET', history, step)
        seq = record and string.match(record, '^.(%d+)') or '0'
      end
      inbox_seq = inbox_seq + 1
      local message_id = 'timer:' .. step .. ':' .. seq
      entries[#entries + 1] = inbox_seq
      entries[#entries + 1] = table.concat({int(inbox_seq), ' ', int(now), ' t', step == '__timeout' and 'b' or 'p',
        ' ', #message_id, ' ', #step, '\n', message_id, step})
    end
  end
end
if #members == 0 then return {'', 0, {}} end
call('SCARD', mine)
sound(unread, ready, rung, later)
if gates then call('XLEN', outbox) end

many('ZREM', timers, members)
if not state or state == 'c' then return {'', 0, {}} end
many('SREM', mine, steps)
many('ZADD', unread, entries)
local doorbell, letter, fields = '', nil, {'iq', int(inbox_seq)}
local is_delayed = state == 'r' and (held or tonumber(available) > now)
local wakes = state == 'p' or (reaches and (state == 'b' or is_delayed))
opens = opens and held == 'o'
if (wakes or opens) and state == 'r' then unready(bell(rank, available, id, crashes), ready, rung, later) end
if wakes and held then
  doorbell, letter = pass_by(fields, id, rank, crashes, now, held, gates, ready, timers, outbox)
elseif wakes or opens then
  doorbell, letter = make_ready(fields, id, rank, crashes, now, now, gates, false, not started, ready, rung, later, timers,
    outbox)
end
call('HSET', x, unpack(fields))
return {doorbell, #entries, {letter}}
