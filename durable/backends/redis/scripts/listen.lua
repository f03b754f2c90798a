-- Let a step listen for events of a name, unless a later letter of its has come before this one. If there are events
-- that it has not looked at and might wait for, it is told to look.
local log, _, about, listeners, index, name_of, _, outbox = unpack(KEYS)
local name, listener, token, kind, topic, shape, shape_text, seen, cancel = unpack(ARGV)
local MOST = 256

local known = call('HGET', listeners, listener)
if known and not is_later(token, string.match(known, '^%S+')) then return {} end
sound(log, index)
call('XLEN', outbox)
local seq = tonumber(call('HGET', name_of, 'seq') or 0)
local found
if seen ~= '' and tonumber(seen) < seq then
  -- Only the oldest of a log are ever deleted: what stands in it counts without gaps.
  local oldest = call('ZRANGE', log, 0, 0)[1]
  local first = oldest and math.max(0, tonumber(seen) + 1 - tonumber(string.sub(oldest, 1, 16)))
  local page = oldest and call('ZRANGE', log, int(first), int(first + MOST)) or {}
  for i, member in ipairs(page) do
    local marks = call('HGET', about, 'm' .. string.sub(member, 17))
    if i > MOST or concerns(marks, topic, shape) then
      found = int(tonumber(string.sub(member, 1, 16)))
      break
    end
  end
end

if known then
  local its_topic, its_shape = string.match(known, '^%S+ %d+ %a (%S+) (%S+) %d+\n')
  if its_topic then call('ZREM', index, its_topic .. listener, its_shape .. listener) end
end
found = kind ~= 'c' and found or nil
call('HSET', listeners, listener,
  table.concat({token, int(seq), kind, topic, shape, found or '0'}, ' ') .. '\n' .. cancel)
call('ZADD', index, 0, topic .. listener)
if shape_text ~= '' then
  call('HSET', name_of, shape, shape_text)
  if kind ~= 'c' then call('ZADD', index, 0, shape .. listener) end
end
if not found then return {} end
local fields = {'k', 'H', 'n', name, 'q', found, 'd', '', listener, token .. ' l'}
return {{call('XADD', outbox, '*', unpack(fields)), fields}}
