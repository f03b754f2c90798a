-- What is to be done now in one partition: due timers, and what dead workers own. It changes nothing.
local timers, later, owned = unpack(KEYS)
local limit, at = tonumber(ARGV[1]), ARGV[2]
local live = {}
for i = 3, #ARGV do live[ARGV[i]] = true end

local now = clock()
local deserted, from = {}, '-'
for _ = 1, 4096 do
  local member = call('ZRANGEBYLEX', owned, from, '+', 'LIMIT', 0, 1)[1]
  if not member or #deserted >= 2 * limit then break end
  local worker = string.sub(member, 1, 4 + tonumber(string.sub(member, 1, 4), 16))
  if not live[worker] then
    local room = limit - #deserted / 2
    for _, each in ipairs(call(
      'ZRANGEBYLEX', owned, '[' .. worker, '(' .. worker .. wide(at), 'LIMIT', 0, room)) do
      deserted[#deserted + 1] = string.sub(each, #worker + 17)
      deserted[#deserted + 1] = each
    end
  end
  from = '(' .. worker .. '\255'
end
return {
  now,
  call('ZRANGEBYSCORE', timers, '-inf', now, 'LIMIT', 0, limit),
  deserted,
  call('ZRANGE', timers, 0, 0, 'WITHSCORES'),
  call('ZRANGEBYSCORE', later, '(' .. int(now), '+inf', 'WITHSCORES', 'LIMIT', 0, 1),
}
