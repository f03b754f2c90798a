-- What waits in each queue: of what stands in the ready index the queue, how many, since when the longest; and of what is
-- held the queue and how many. What is held stands among the rung, at no instant, and so by the order of its names: it is
-- counted by ranks, from the one given on, and the answer has the one to go on from, if there are more.
local ready, rung = unpack(KEYS)
local rank = tonumber(ARGV[1])
local MOST = 256

local now = clock()
local found, from = {}, '-'
for _ = 1, rank == 0 and 4096 or 0 do
  local member = call('ZRANGEBYLEX', ready, from, '+', 'LIMIT', 0, 1)[1]
  if not member then break end
  local queue, rest = string.match(member, '^([^%z]*)%z[^%z]*%z()')
  local of = found[#found]
  if not of or of[1] ~= queue then
    of = {queue, call('ZLEXCOUNT', ready, '[' .. queue .. '\0', '(' .. queue .. '\1'), string.sub(member, rest + 10, rest + 25)}
    found[#found + 1] = of
  end
  local since = string.sub(member, rest + 10, rest + 25)
  if tonumber(since) < tonumber(of[3]) then of[3] = since end
  from = '(' .. string.sub(member, 1, rest + 9) .. ':'
end

local all = call('ZCARD', rung)
local first = all - call('ZCOUNT', rung, '+inf', '+inf')

-- The first rank that does not fit; those that fit come first.
local function until_not(low, high, fits)
  while low < high do
    local middle = math.floor((low + high) / 2)
    if fits(call('ZRANGE', rung, middle, middle)[1]) then low = middle + 1 else high = middle end
  end
  return low
end

local held = {}
rank = rank + first
for _ = 1, MOST do
  if rank >= all then break end
  local member = call('ZRANGE', rung, rank, rank)[1]
  local queue, rest = string.match(member, '^([^%z]*)%z[^%z]*%z()')
  local group = string.sub(member, 1, rest + 9)
  local behind = until_not(rank, all, function(other) return string.sub(other, 1, rest + 9) == group end)
  -- Behind those who wait at a gate are those who are to seek theirs later.
  local later = until_not(rank, behind, function(other) return tonumber(string.sub(other, rest + 10, rest + 25)) <= now end)
  if later > rank then held[#held + 1] = {queue, later - rank} end
  rank = behind
end
return {now, found, held, rank < all and rank - first or ''}
