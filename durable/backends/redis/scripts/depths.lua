-- What waits in each queue, of what stands in the ready index: the queue, how many, since when the longest.
local ready = KEYS[1]
local found, lane, from = {}, nil, '-'
for _ = 1, 4096 do
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
return {clock(), found}
