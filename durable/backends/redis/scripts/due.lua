-- Take doorbells of the wanted lanes, greater priority first, then the longest ready.
local ready, later, rung = unpack(KEYS)
local limit, again = tonumber(ARGV[1]), tonumber(ARGV[2])
local now = clock()
sound(ready, later, rung)

-- What waited for an instant that has come goes to its lane.
for _, waiting in ipairs({later, rung}) do
  local come = call('ZRANGEBYSCORE', waiting, '-inf', now, 'LIMIT', 0, 256)
  if #come > 0 then
    local entries = {}
    for i, member in ipairs(come) do
      entries[2 * i - 1] = 0
      entries[2 * i] = member
    end
    call('ZADD', ready, unpack(entries))
    call('ZREMRANGEBYRANK', waiting, 0, #come - 1)
  end
end

-- Bytes, as the index compares them; `>` would ask the server's locale.
local function is_after(one, other)
  for i = 1, math.min(#one, #other) do
    local a, b = string.byte(one, i), string.byte(other, i)
    if a ~= b then return a > b end
  end
  return #one > #other
end

-- The wanted lanes (ARGV, in order) and those that there are, side by side: a step for the fewer of both.
local heads, i = {}, 3
while i <= #ARGV do
  local member = call('ZRANGEBYLEX', ready, '[' .. ARGV[i], '+', 'LIMIT', 0, 1)[1]
  if not member then break end
  while i <= #ARGV and is_after(string.sub(member, 1, #ARGV[i]), ARGV[i]) do i = i + 1 end
  if i <= #ARGV and string.sub(member, 1, #ARGV[i]) == ARGV[i] then
    heads[#heads + 1] = {lane = ARGV[i], next = 1, page = {}, last = '[' .. ARGV[i]}
    i = i + 1
  end
end
local portion = math.ceil(limit / math.max(#heads, 1)) + 1
local function first_of(head)
  if head.next > #head.page and not head.is_done then
    head.page = call('ZRANGEBYLEX', ready, head.last, '(' .. head.lane .. '\255', 'LIMIT', 0, portion)
    head.next = 1
    head.is_done = #head.page < portion
    if #head.page > 0 then head.last = '(' .. head.page[#head.page] end
  end
  local member = head.page[head.next]
  return member and string.sub(member, #head.lane + 1, #head.lane + 26)
end
local found, entries = {}, {}
while #found < limit do
  local best, best_rank
  for _, head in ipairs(heads) do
    local rank = first_of(head)
    if rank and (not best_rank or rank < best_rank) then best, best_rank = head, rank end
  end
  if not best then break end
  local member = best.page[best.next]
  best.next = best.next + 1
  found[#found + 1] = member
  entries[#entries + 1] = now + again
  entries[#entries + 1] = member
end
many('ZREM', ready, found)
many('ZADD', rung, entries)
return found
