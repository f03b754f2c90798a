-- Tell a gate that somebody seeks it ('s'), gives back what he has there ('g', at his end 'e', of earlier epochs only 'b'),
-- leaves its line ('l'), or is to have room made for him ('x'); then let pass who may. What it has to say is put into the
-- outbox, and answered.
--
-- Of each seeker the gate keeps the epoch of what it heard last, so that what comes twice, or too late, changes nothing:
--   w <epoch> <place> <is new> <at> <of> <length> <message id><gates>   waits, and what is needed to send him on
--   h <epoch> <place>                                                   holds a slot
--   c <epoch>                                                           was counted by a rate or a window
local gate, seekers, line, slots, past, names, timers, outbox, limits = unpack(KEYS)
local what, name, rule, id, step, epoch = unpack(ARGV, 1, 6)
local MOST = 100
local HAIR = 0.001
local TIDY_AFTER = 60000

local now = clock()
local holder = id .. '\0' .. step
local kind, limit, per, burst, arrival, turn = unpack(call('HMGET', gate, 'k', 'l', 'p', 'b', 't', 'n'))
local entry = call('HGET', seekers, holder)
local override = call('HGET', limits, rule)
sound(line, slots, past, names, timers)
call('XLEN', outbox)

local order, is_new, message, gates, at, of, keeps, when_full
if what == 's' then
  order, is_new, message, gates, at, of = unpack(ARGV, 7, 12)
  kind, limit, per, burst, keeps, when_full = unpack(ARGV, 13, 18)
elseif what == 'g' or what == 'b' then
  keeps = ARGV[7]
elseif what == 'x' then
  gates, at = unpack(ARGV, 7, 8)
end
override = override and string.match(override, ' (%d+)$')
local declared = limit
limit, per, burst = tonumber(override or limit or 0), tonumber(per or 0), tonumber(burst or 0)
arrival, turn = tonumber(arrival or 0), tonumber(turn or 0)

local function is_before(one, other)
  local a, b = {string.match(one, '^(%d+)-(%d+)$')}, {string.match(other, '^(%d+)-(%d+)$')}
  if a[1] ~= b[1] then return tonumber(a[1]) < tonumber(b[1]) end
  return tonumber(a[2]) < tonumber(b[2])
end
local state, known, place = string.match(entry or '', '^(.) (%S+) ?(%S*)')
local function is_late() return known and is_before(epoch, known) end

local letters = {}
local function tell(what, who, epoch, order, is_new, message, gates, at)
  local its_id, its_step = string.match(who, '^(.*)%z(.*)$')
  local fields = {'k', 'G', 'o', what, 'i', its_id, 's', its_step, 'p', order, 'n', is_new, 'm', message, 'g', gates,
    'e', epoch, 'a', at}
  letters[#letters + 1] = {call('XADD', outbox, '*', unpack(fields)), fields}
end
local function send_on(who, epoch, order, is_new, message, gates, at, of)
  local is_last = at + 1 >= tonumber(of)
  tell(is_last and 'p' or 's', who, epoch, order, is_new, message, gates, is_last and at or int(at + 1))
end

-- The instant at which it lets the next one pass, if that is a question of time alone.
local function opens_at()
  if limit < 1 or kind == 's' then return nil end
  if kind == 'r' then return math.ceil(arrival - burst * per / limit - HAIR) end
  local excess = call('ZCARD', past) - limit
  if excess < 0 then return now end
  return tonumber(call('ZRANGE', past, excess, excess, 'WITHSCORES')[2]) + per
end
local function has_room()
  if kind == 's' then return call('ZCARD', slots) < limit end
  local opens = opens_at()
  return opens and opens <= now
end

-- Each answers what is to be remembered of him who is let in.
local function next_turn()
  turn = turn + 1
  return wide(turn)
end
local function let_in(who, epoch)
  if kind == 's' then
    local place = wide(now) .. next_turn()
    call('ZADD', slots, 0, place .. who)
    call('HSET', seekers, who, table.concat({'h', epoch, place}, ' '))
    return
  end
  if kind == 'r' then
    arrival = math.max(arrival, now) + per / limit
  else
    call('ZADD', past, now, next_turn())
  end
  call('HSET', seekers, who, 'c ' .. epoch)
end

-- From here on nothing can fail.

if kind == 'w' then call('ZREMRANGEBYSCORE', past, '-inf', int(now - per)) end
local waits = false
if what == 's' and not (known and not is_before(known, epoch)) then
  if (state == 'h' and keeps == '1') or (state == 'c' and step == '') then
    call('HSET', seekers, holder, table.concat({state, epoch, place}, ' '))
    send_on(holder, epoch, order, is_new, message, gates, tonumber(at), of)
  else
    if state == 'h' then call('ZREM', slots, place .. holder) end
    if state == 'w' then call('ZREM', line, place .. holder) end
    local its_place = order .. wide(now) .. next_turn()
    call('ZADD', line, 0, its_place .. holder)
    call('HSET', seekers, holder, table.concat({'w', epoch, its_place, is_new, at, of, #message, message .. gates}, ' '))
    waits = true
  end
elseif what == 'l' and known and not is_late() then
  if state == 'w' then
    call('ZREM', line, place .. holder)
    call('HDEL', seekers, holder)
  else
    call('HSET', seekers, holder, table.concat({state, epoch, place}, ' '))
  end
elseif known and (((what == 'g' or what == 'e') and not is_late()) or (what == 'b' and is_before(known, epoch))) then
  if state == 'w' then
    call('ZREM', line, place .. holder)
    call('HDEL', seekers, holder)
  elseif state == 'h' and (what == 'e' or keeps ~= '1') then
    call('ZREM', slots, place .. holder)
    call('HDEL', seekers, holder)
  elseif state == 'c' and what == 'e' then
    call('HDEL', seekers, holder)
  end
elseif what == 'x' and state == 'w' and known == epoch then
  -- Those who were told to make room have another score.
  local older = call('ZCOUNT', slots, 0, 0) + call('ZCOUNT', line, 0, 0) - 1
  local excess = math.min(older + 1 - limit, MOST)
  for _, members in ipairs({{slots, 33}, {line, 43}}) do
    local found = excess > 0 and call('ZRANGEBYSCORE', members[1], 0, 0, 'LIMIT', 0, excess + 1) or {}
    for _, member in ipairs(found) do
      local who = string.sub(member, members[2])
      if who ~= holder and excess > 0 then
        call('ZADD', members[1], 1, member)
        tell('x', who, epoch, '', '0', '', gates, at)
        excess = excess - 1
      end
    end
  end
end

-- The first in line, as long as there is room.
local passed = 0
while kind and passed < MOST and has_room() do
  local member = call('ZRANGE', line, 0, 0)[1]
  if not member then break end
  local who = string.sub(member, 43)
  local its_epoch, its_new, its_at, its_of, length, rest =
    string.match(call('HGET', seekers, who), '^w (%S+) %S+ (%d) (%d+) (%d+) (%d+) ()')
  local payload = string.sub(call('HGET', seekers, who), rest)
  call('ZREM', line, member)
  let_in(who, its_epoch)
  send_on(who, its_epoch, string.sub(member, 1, 10), its_new, string.sub(payload, 1, tonumber(length)),
    string.sub(payload, tonumber(length) + 1), tonumber(its_at), its_of)
  if who == holder then waits = false end
  passed = passed + 1
end

if waits then
  if is_new == '1' and (kind == 'w' or when_full == 'f') then
    local _, _, its_place = string.match(call('HGET', seekers, holder), '^(.) (%S+) (%S+)')
    call('ZREM', line, its_place .. holder)
    call('HDEL', seekers, holder)
    tell('f', holder, epoch, order, is_new, message, gates, at)
  else
    tell('h', holder, epoch, order, is_new, message, gates, at)
  end
end

local waiting, held = call('ZCARD', line), call('ZCARD', slots)
if waiting + held > 0 then
  call('ZADD', names, 0, name)
else
  call('ZREM', names, name)
end
local opens = ''
local idle_at = (kind == 'r' and arrival > now) and math.ceil(arrival) or nil
if kind == 'w' and call('ZCARD', past) > 0 then
  idle_at = tonumber(call('ZRANGE', past, -1, -1, 'WITHSCORES')[2]) + per
end
if waiting > 0 then opens = has_room() and now or opens_at() or '' end
if opens ~= '' or idle_at then
  -- One that is idle is forgotten some time later: nobody waits for that.
  call('ZADD', timers, opens ~= '' and opens or idle_at + TIDY_AFTER, '\0' .. name)
else
  call('ZREM', timers, '\0' .. name)
end
if waiting + held > 0 or idle_at then
  call('HSET', gate, 'k', kind, 'l', declared, 'p', per, 'b', burst,
    't', string.format('%.17g', arrival), 'n', int(turn))
else
  call('UNLINK', gate)
end
return {letters, opens}
