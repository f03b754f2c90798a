-- What several scripts have in common. Each script validates all it is going to write before its first write, because
-- Redis keeps what a script wrote before an error. Instants are milliseconds; `..` on a number would round it (H12).
local call = redis.call

local function clock()
  local time = call('TIME')
  return time[1] * 1000 + math.floor(time[2] / 1000)
end

local function int(number)
  return string.format('%.0f', number)
end

-- Sixteen digits, so that the order of texts is the order of numbers.
local function wide(number)
  return string.format('%016.0f', number)
end

-- Raises, while nothing is written, when a key holds what is not ours.
local function sound(...)
  for _, key in ipairs({...}) do
    call('ZCARD', key)
  end
end

-- A command with any number of arguments, in portions that the stack of Lua can hold.
local function many(command, key, items)
  for first = 1, #items, 1000 do
    call(command, key, unpack(items, first, math.min(first + 999, #items)))
  end
end

-- An id, as it stands in the index, with the instant of creation.
local function id_entry(id, created)
  return 'i' .. id .. '\0' .. wide(created)
end

-- How many stand in the index under a prefix.
local function standing(index, prefix)
  return call('ZLEXCOUNT', index, '[' .. prefix, '(' .. prefix .. '\255')
end

-- A doorbell, as it stands in the ready index: its lane and priority, since when it is ready, the id, the crashes.
local function bell(rank, since, id, crashes)
  return rank .. wide(since) .. id .. '\0' .. (crashes or '0')
end

local function unready(member, ready, rung, later)
  if call('ZREM', ready, member) == 0 and call('ZREM', rung, member) == 0 then
    call('ZREM', later, member)
  end
end

-- Fields of a hash that is to be written, behind each other.
local function put(fields, ...)
  for _, word in ipairs({...}) do fields[#fields + 1] = word end
end

-- A letter about an execution, or a step of it, and its gates. The id of the letter in the outbox is the epoch of what it
-- says: what a gate hears of an earlier epoch, it has heard too late. The answer is {id, fields}.
local function write_to_gates(outbox, what, id, step, order, is_new, message, gates)
  local fields = {'k', 'G', 'o', what, 'i', id, 's', step, 'p', order, 'n', is_new, 'm', message, 'g', gates}
  return {call('XADD', outbox, '*', unpack(fields)), fields}
end

-- Let an execution be claimable from an instant on, once it has passed its gates. Until then it is held: it stands among
-- the rung, to be rung at no instant, and either a timer or a letter to its gates is on the way. `gives`: it may hold slots
-- that it is to give back. The answer: its doorbell if it is claimable now, and the letter if there is one.
local function make_ready(fields, id, rank, crashes, at, now, gates, gives, is_new, ready, rung, later, timers, outbox)
  local member = bell(rank, at, id, crashes)
  put(fields, 'st', 'r', 'av', int(at))
  if not gates then
    call('ZADD', at <= now and ready or later, at <= now and 0 or at, member)
    return at <= now and member or ''
  end
  local what = at > now and (gives and 'g' or '') or (gives and 'S' or 's')
  call('ZADD', rung, '+inf', member)
  if at > now then call('ZADD', timers, at, id .. '\0__gates') end
  put(fields, 'hd', at > now and 'o' or 's', 'hb', '', 'ha', '')
  if what == '' then return '' end
  local letter = write_to_gates(outbox, what, id, '', string.sub(rank, -10), is_new and '1' or '0', '', gates)
  put(fields, 'ep', letter[1])
  return '', letter
end

-- Let what is held be claimable now, whatever its gates say; it keeps the slots that it has.
local function pass_by(fields, id, rank, crashes, now, held, gates, ready, timers, outbox)
  local member, letter = bell(rank, now, id, crashes), nil
  if held == 'o' then
    call('ZREM', timers, id .. '\0__gates')
  else
    letter = write_to_gates(outbox, 'l', id, '', string.sub(rank, -10), '0', '', gates)
    put(fields, 'ep', letter[1])
  end
  put(fields, 'st', 'r', 'av', int(now), 'hd', '', 'hb', '', 'ha', '')
  call('ZADD', ready, 0, member)
  return member, letter
end

-- Who watches is told by way of the outbox. The answer is what was put there: {id, fields} of each entry.
local function tell_watchers(id, status, workflow, attempt, data, watchers, watched, outbox)
  local told = {}
  for first = 1, #watchers, 1000 do
    local fields = {'k', 'T', 'i', id, 's', status, 'w', workflow, 'a', attempt, 'd', data,
      unpack(watchers, first, math.min(first + 999, #watchers))}
    told[#told + 1] = {call('XADD', outbox, '*', unpack(fields)), fields}
  end
  call('UNLINK', watched)
  return told
end

-- The end of one that nobody ever claimed, and that stands in no index of the ready any more.
local function end_unclaimed(fields, id, now, status, created, data, has_deadline, index, closed, timers)
  local stamp = wide(created) .. id
  put(fields, 'st', 'c', 'su', 'x', 'er', data, 'fa', int(now), 'hd', '', 'hb', '', 'ha', '')
  call('ZREM', index, 's' .. status .. stamp)
  call('ZADD', index, 0, 'sx' .. stamp)
  call('ZADD', closed, 0, 'x' .. wide(now) .. id)
  if has_deadline then call('ZREM', timers, id .. '\0__timeout') end
end

-- Is the first of two entries of an outbox the later one?
local function is_later(one, other)
  local at, number = string.match(one, '^(%d+)-(%d+)$')
  local its_at, its_number = string.match(other, '^(%d+)-(%d+)$')
  if at ~= its_at then return tonumber(at) > tonumber(its_at) end
  return tonumber(number) > tonumber(its_number)
end

-- Might who listens under these marks wait for an event with those?
local function concerns(marks, topic, shape)
  return string.find(marks, topic, 1, true) ~= nil or string.find(marks, shape, 1, true) == nil
end

-- The field under which it is kept that an execution listens, and the letter of what kind it is ('c': a cancel), of
-- what a batch has for others; nil of anything but a listening and its end.
local function listening_of(out)
  local verb, kind, length, at = string.match(out, '^([LU])(.)(%d+) ()')
  if verb then return string.sub(out, at, at + length - 1), kind, verb == 'L' end
end

-- All listening ends, or (`stays`) all but that of cancels. The answer is what was put into the outbox.
local function stop_listening(id, incarnation, listening, outbox, told, stays)
  local all = call('HGETALL', listening)
  for i = 1, #all, 2 do
    local field = all[i]
    if not (stays and string.sub(all[i + 1], 1, 1) == 'c') then
      local fields = {'k', 'O', 'i', id, 'c', incarnation, 'd', 'U-' .. #field .. ' ' .. field}
      told[#told + 1] = {call('XADD', outbox, '*', unpack(fields)), fields}
      call('HDEL', listening, field)
    end
  end
end
