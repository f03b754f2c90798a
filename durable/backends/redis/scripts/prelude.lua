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

-- A doorbell, as it stands in the ready index: its lane and priority, since when it is ready, the id, the crashes.
local function bell(rank, since, id, crashes)
  return rank .. wide(since) .. id .. '\0' .. (crashes or '0')
end

local function unready(member, ready, rung, later)
  if call('ZREM', ready, member) == 0 and call('ZREM', rung, member) == 0 then
    call('ZREM', later, member)
  end
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
