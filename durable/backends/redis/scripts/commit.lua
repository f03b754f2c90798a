-- Write a batch and move on. The caller declares the first three keys only when it believes that they are enough;
-- when they are not, it is told so ('?') before anything is written, and comes again with all of them.
local x, history, unread, owned, index, closed, ready, later, timers, mine, watched, outbox, consumed, values, seen_ids,
  rung, seeking, listening = unpack(KEYS)
local id, nonce, ver, op, seen, next = unpack(ARGV, 1, 6)
local n_records, n_drop, n_consume, n_values, n_out, n_passing =
  tonumber(ARGV[7]), tonumber(ARGV[8]), tonumber(ARGV[9]), tonumber(ARGV[10]), tonumber(ARGV[11]), tonumber(ARGV[12])
local MAX_RECORDS = 10000

local state, owner, has_ver, last_op, history_seq, inbox_seq, answered_seq, crashes =
  unpack(call('HMGET', x, 'st', 'n', 'ver', 'op', 'hq', 'iq', 'an', 'cr'))
has_ver, history_seq, inbox_seq = has_ver or '0', tonumber(history_seq or 0), tonumber(inbox_seq or 0)
local is_owner = state == 'o' and owner == nonce

if state and last_op == op then
  local news = {}
  if tonumber(answered_seq) > tonumber(seen) then
    news = call('ZRANGEBYSCORE', unread, '(' .. seen, answered_seq)
  end
  return {'w', has_ver, is_owner and 1 or 0, clock(), news}
end
if not is_owner then return {'f'} end
if has_ver ~= ver then return {'d'} end
if not owned and (next ~= 'u' or n_drop + n_consume + n_values + n_out + n_passing > 0) then return {'?'} end

-- The records that are there already: `had` is 'f' (final), 'o' (open) or 't' (open, with a timer).
local at_records, at_drop = 12, 12 + 3 * n_records
local at_consume = at_drop + n_drop
local at_values = at_consume + 2 * n_consume
local at_out = at_values + 2 * n_values
local at_passing = at_out + n_out
local at_next = at_passing + 3 * n_passing
local had, named, dropped = {}, {}, {}
for i = 1, n_drop do named[#named + 1] = ARGV[at_drop + i] end
for i = 1, n_records do named[#named + 1] = ARGV[at_records + 3 * i - 2] end
for first = 1, #named, 1000 do
  local last = math.min(first + 999, #named)
  for i, value in ipairs(call('HMGET', history, unpack(named, first, last))) do
    had[named[first + i - 1]] = value and string.sub(value, 1, 1) or nil
  end
end
local gone, sets_timer, stops_timer = {}, false, false
for i = 1, n_drop do
  local step = ARGV[at_drop + i]
  if had[step] and not dropped[step] then
    gone[#gone + 1] = step
    dropped[step] = had[step]
    stops_timer = stops_timer or had[step] == 't'
  end
end
local flags, fresh = {}, 0
for i = 1, n_records do
  local step, flag = ARGV[at_records + 3 * i - 2], string.sub(ARGV[at_records + 3 * i - 1], 1, 1)
  local before = flags[step]
  if before == nil and not dropped[step] then before = had[step] end
  if before == 'f' then return {'d'} end
  if flags[step] == nil and before == nil then fresh = fresh + 1 end
  stops_timer = stops_timer or before == 't'
  sets_timer = sets_timer or flag == 't'
  flags[step] = flag
end
if history_seq + n_records > MAX_RECORDS and next ~= 'n' then
  local size = call('HLEN', history) - #gone + fresh
  if size > MAX_RECORDS then return {'!', size} end
end
if not timers and (sets_timer or stops_timer) then return {'?'} end

-- What is taken from the inbox, and what of it is new to the owner.
local taken, takers = {}, {}
for i = 1, n_consume do
  local seq, step = ARGV[at_consume + 2 * i - 1], ARGV[at_consume + 2 * i]
  if not takers[seq] then
    local entry = call('ZRANGEBYSCORE', unread, seq, seq)[1]
    if entry then
      takers[seq] = step
      taken[#taken + 1] = {seq, entry}
    end
  end
end
local news, is_urgent = {}, false
if inbox_seq > tonumber(seen) then
  for _, entry in ipairs(call('ZRANGEBYSCORE', unread, '(' .. seen, '+inf')) do
    local seq, reach = string.match(entry, '^(%d+) %d+ .(.)')
    if not takers[seq] then
      news[#news + 1] = entry
      is_urgent = is_urgent or reach ~= 'p'
    end
  end
end

local leaves = next ~= 'u' and not (next == 'p' and #news > 0)
local created, rank, owned_at, worker, has_timers, has_watchers, deadline, workflow, attempt, generation, gates, gives,
  has_seeking, listens
local own_timers, watchers, sought = {}, {}, {}
if owned then
  created, rank, owned_at, worker, has_timers, has_watchers, deadline, workflow, attempt, generation, gates, gives,
    has_seeking, listens = unpack(call('HMGET', x,
      'ca', 'rk', 'oa', 'wk', 'tc', 'wc', 'dl', 'wf', 'at', 'ge', 'gt', 'gf', 'sk', 'ls'))
  gates, gives, has_seeking, listens = gates or nil, gives == '1', has_seeking == '1', listens == '1'
  if leaves then
    sound(owned, index)
    if next == 'c' then sound(closed) end
    if next == 'b' or next == 'r' or next == 'n' then sound(ready, later) end
    if next == 'c' and deadline then sound(timers) end
  end
  if has_timers and (next == 'c' or next == 'n') then own_timers = call('SMEMBERS', mine) end
  if has_watchers and next == 'c' then watchers = call('HGETALL', watched) end
  if sets_timer or stops_timer or has_timers then
    sound(timers)
    call('SCARD', mine)
  end
  if has_seeking and (next == 'c' or next == 'n') then
    local all = call('HGETALL', seeking)
    for i = 1, #all, 2 do sought[all[i]] = string.match(all[i + 1], '^%S+ (.*)$') end
  else
    for i = 1, n_passing do
      local step = ARGV[at_passing + 3 * i - 2]
      local known = call('HGET', seeking, step)
      if known then sought[step] = string.match(known, '^%S+ (.*)$') end
    end
  end
  if leaves and gates then sound(rung, timers) end
  if n_out + n_passing + #watchers > 0 or has_seeking or listens or (leaves and gates) then call('XLEN', outbox) end
  if n_out > 0 or listens then call('HLEN', listening) end
  if n_consume > 0 then
    call('HLEN', consumed)
    call('SCARD', seen_ids)
  end
  if n_values > 0 then call('HLEN', values) end
end
local now = clock()

-- From here on nothing can fail.

local stopped, started = {}, {}
for _, step in ipairs(gone) do
  if dropped[step] == 't' then stopped[step] = true end
end
many('HDEL', history, gone)
if n_records > 0 then
  local pairs_of = {}
  for i = 1, n_records do
    local step, flag = ARGV[at_records + 3 * i - 2], ARGV[at_records + 3 * i - 1]
    local letter = string.sub(flag, 1, 1)
    pairs_of[2 * i - 1] = step
    pairs_of[2 * i] = letter .. int(history_seq + i) .. ' ' .. ARGV[at_records + 3 * i]
    if letter == 't' then
      started[step], stopped[step] = string.sub(flag, 2), nil
    elseif started[step] or had[step] == 't' then
      started[step], stopped[step] = nil, true
    end
  end
  history_seq = history_seq + n_records
  if next ~= 'n' then
    many('HSET', history, pairs_of)
    if next ~= 'c' then
      for step, at in pairs(started) do
        call('ZADD', timers, at, id .. '\0' .. step)
        call('SADD', mine, step)
      end
    end
  end
end
for step in pairs(stopped) do
  call('ZREM', timers, id .. '\0' .. step)
  call('SREM', mine, step)
end

if #taken > 0 then
  local entries, moved = {}, {}
  for i, pair in ipairs(taken) do
    local seq, entry = pair[1], pair[2]
    entries[i] = entry
    moved[2 * i - 1] = seq
    moved[2 * i] = #takers[seq] .. ' ' .. takers[seq] .. entry
    local length, rest = string.match(entry, '^%d+ %d+ c. (%d+) %d+()')
    if length then call('SREM', seen_ids, 'w' .. string.sub(entry, rest + 1, rest + length)) end
  end
  many('ZREM', unread, entries)
  if next ~= 'n' then many('HSET', consumed, moved) end
end
if n_values > 0 and next ~= 'n' then
  local set = {}
  for i = 1, 2 * n_values do set[i] = ARGV[at_values + i] end
  many('HSET', values, set)
end
local sent = {}
if n_out > 0 then
  local incarnation = call('HGET', x, 'cop')
  for i = 1, n_out do
    local out = ARGV[at_out + i]
    sent[i] = call('XADD', outbox, '*', 'k', 'O', 'i', id, 'c', incarnation, 'd', out)
    local field, kind, begins = listening_of(out)
    if begins then
      call('HSET', listening, field, kind .. sent[i])
      listens = true
    elseif field then
      call('HDEL', listening, field)
    end
  end
  sent[n_out + 1] = incarnation
end

local fields = {'ver', int(tonumber(ver) + 1), 'op', op, 'an', int(inbox_seq)}
local function set(field, value)
  fields[#fields + 1] = field
  fields[#fields + 1] = value
end

-- What its steps seek and free; its end, and another beginning, free all.
local told = {}
local function free(step)
  told[#told + 1] = write_to_gates(outbox, 'e', id, step, '', '0', '', sought[step])
  sought[step] = nil
  call('HDEL', seeking, step)
end
for i = 1, n_passing do
  local step, message_id, its_gates = unpack(ARGV, at_passing + 3 * i - 2, at_passing + 3 * i)
  if sought[step] then free(step) end
  if its_gates ~= '' then
    local letter = write_to_gates(outbox, 's', id, step, string.sub(rank, -10), '0', message_id, its_gates)
    told[#told + 1] = letter
    sought[step] = its_gates
    call('HSET', seeking, step, letter[1] .. ' ' .. its_gates)
    has_seeking = true
    set('sk', 1)
  end
end
if has_seeking and (next == 'c' or next == 'n') then
  local steps = {}
  for step in pairs(sought) do steps[#steps + 1] = step end
  for _, step in ipairs(steps) do free(step) end
  set('sk', '')
end
if n_records > 0 then set('hq', int(history_seq)) end
if crashes and crashes ~= '0' then set('cr', 0) end
if sets_timer and not has_timers then set('tc', 1) end
if listens and n_out > 0 then set('ls', 1) end

local doorbell = ''
if leaves then
  local a, b, c, d = unpack(ARGV, at_next + 1, at_next + 4)
  local status, ready_at = a, nil
  if next == 'p' then
    set('st', 'p')
    set('wu', b)
  elseif next == 'b' then
    set('st', 'b')
    set('er', b)
    set('co', c)
    if is_urgent then ready_at = now end
  elseif next == 'r' then
    ready_at = is_urgent and now or math.max(tonumber(b), now)
    set('at', c)
  elseif next == 'c' then
    set('st', 'c')
    set('rs', b)
    set('er', c)
    set('co', d)
    set('fa', now)
    call('ZADD', closed, 0, status .. wide(now) .. id)
    if deadline then call('ZREM', timers, id .. '\0__timeout') end
    if #watchers > 0 then
      local data = status == 'c' and b or c
      for _, letter in ipairs(
        tell_watchers(id, status, workflow, attempt or 1, data, watchers, watched, outbox)) do
        told[#told + 1] = letter
      end
      set('wc', '')
    end
  else
    status, ready_at = 'p', now
    set('in', b)
    set('ge', int((generation or 0) + 1))
    set('at', 1)
    call('UNLINK', history, consumed, values)
  end
  if listens and (next == 'c' or next == 'n') then
    stop_listening(id, call('HGET', x, 'cop'), listening, outbox, told, next == 'n')
    if next == 'c' then set('ls', '') end
  end
  if #own_timers > 0 then
    local members = {}
    for i, step in ipairs(own_timers) do members[i] = id .. '\0' .. step end
    many('ZREM', timers, members)
    call('UNLINK', mine)
  end
  local letter
  if ready_at then
    doorbell, letter = make_ready(fields, id, rank, nil, ready_at, now, gates, gives, false, ready, rung, later, timers,
      outbox)
  elseif gates and (gives or next == 'c') then
    letter = write_to_gates(outbox, next == 'c' and 'e' or 'g', id, '', '', '0', '', gates)
    set('ep', letter[1])
  end
  if letter then told[#told + 1] = letter end
  set('su', status)
  local stamp = wide(created) .. id
  call('ZREM', owned, string.format('%04x', #worker) .. worker .. wide(owned_at) .. id)
  call('ZREM', index, 'sr' .. stamp)
  call('ZADD', index, 0, 's' .. status .. stamp)
end
call('HSET', x, unpack(fields))
return {'w', fields[2], leaves and 0 or 1, now, news, doorbell, sent, told}
