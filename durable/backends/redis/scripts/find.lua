-- A page of the stamps (instant of creation and id) that stand in the index under all of these prefixes, newest first.
local index = KEYS[1]
local below, since, id_prefix, want = ARGV[1], ARGV[2], ARGV[3], tonumber(ARGV[4])
local prefixes = {unpack(ARGV, 5)}

-- The shortest list leads; the others are asked.
if #prefixes > 1 then
  local lead, least = 1, nil
  for i, prefix in ipairs(prefixes) do
    local length = call('ZLEXCOUNT', index, '[' .. prefix, '(' .. prefix .. '\255')
    if not least or length < least then lead, least = i, length end
  end
  prefixes[1], prefixes[lead] = prefixes[lead], prefixes[1]
end
local lead = prefixes[1]
local top = '(' .. lead .. (below == '' and '\255' or below)
local found = {}
for _ = 1, 8 do
  local page = call('ZREVRANGEBYLEX', index, top, '[' .. lead .. since, 'LIMIT', 0, 128)
  local stamps = {}
  for _, member in ipairs(page) do
    local stamp = string.sub(member, #lead + 1)
    if string.sub(stamp, 17, 16 + #id_prefix) == id_prefix then stamps[#stamps + 1] = stamp end
  end
  for i = 2, #prefixes do
    if #stamps == 0 then break end
    local members, kept = {}, {}
    for j, stamp in ipairs(stamps) do members[j] = prefixes[i] .. stamp end
    for j, score in ipairs(call('ZMSCORE', index, unpack(members))) do
      if score then kept[#kept + 1] = stamps[j] end
    end
    stamps = kept
  end
  for _, stamp in ipairs(stamps) do
    found[#found + 1] = stamp
    if #found == want then return {stamp, found} end
  end
  if #page < 128 then return {'', found} end
  top = '(' .. page[#page]
end
return {string.sub(top, #lead + 2), found}
