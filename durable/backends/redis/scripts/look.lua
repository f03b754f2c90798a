-- A page of the events of a name that have a topic, or whose sender did not know the shape, in order.
local log, events, about = unpack(KEYS)
local topic, shape, since, after, limit = unpack(ARGV)
local MOST = 256

local oldest = call('ZRANGE', log, 0, 0)[1]
if not oldest then return {after, 0, {}} end
-- Only the oldest are ever deleted: what stands in it counts without gaps.
local first = math.max(
  tonumber(after) + 1 - tonumber(string.sub(oldest, 1, 16)), call('ZCOUNT', log, '-inf', '(' .. since), 0)
local page = call('ZRANGE', log, int(first), int(first + MOST - 1))
local found, seq = {}, nil
for _, member in ipairs(page) do
  if #found == tonumber(limit) then return {seq, 1, found} end
  seq = int(tonumber(string.sub(member, 1, 16)))
  local id = string.sub(member, 17)
  local marks, started, waiting = unpack(call('HMGET', about, 'm' .. id, 's' .. id, 'w' .. id))
  if concerns(marks, topic, shape) then
    found[#found + 1] = {id, marks, call('HGET', events, id), started, waiting or ''}
  end
end
if #page == MOST then return {seq, 1, found} end
local newest = tonumber(string.sub(call('ZRANGE', log, -1, -1)[1], 1, 16))
return {int(math.max(tonumber(after), newest)), 0, found}
