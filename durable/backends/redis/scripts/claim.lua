-- Own a ready execution, and learn all that its owner must know.
local x, history, unread, ready, rung, later, owned, index = unpack(KEYS)
local id, nonce, worker, have_op, place = unpack(ARGV)

local state, owner, available, rank, crashes, status, created, ver, op, started, inbox_seq, held, history_seq =
  unpack(call('HMGET', x, 'st', 'n', 'av', 'rk', 'cr', 'su', 'ca', 'ver', 'op', 'sa', 'iq', 'hd', 'hq'))
if not state then return {'-'} end
local now = clock()
local is_new = not (state == 'o' and owner == nonce)
if is_new and (state ~= 'r' or tonumber(available) > now or (held and held ~= '')) then return {state} end

-- A long history is left to a read of its own: it would keep everybody else waiting here.
local records, entries = {}, {}
if ver and op == have_op then
  records = false
elseif history_seq then
  records = call('HLEN', history) > 256 and 1 or call('HGETALL', history)
end
if inbox_seq then entries = call('ZRANGE', unread, 0, -1) end

if is_new then
  sound(owned, index)
  unready(bell(rank, available, id, crashes), ready, rung, later)
  if status ~= 'r' then
    local stamp = wide(created) .. id
    call('ZREM', index, 's' .. status .. stamp)
    call('ZADD', index, 0, 'sr' .. stamp)
  end
  call('ZADD', owned, 0, place .. wide(now) .. id)
  local fields = {'st', 'o', 'su', 'r', 'n', nonce, 'wk', worker, 'oa', now}
  if not started then
    fields[#fields + 1] = 'sa'
    fields[#fields + 1] = now
  end
  if ver then
    for _, field in ipairs({'er', '', 'co', ''}) do fields[#fields + 1] = field end
  end
  call('HSET', x, unpack(fields))
end
return {'o', now, call('HGETALL', x), records, entries}
