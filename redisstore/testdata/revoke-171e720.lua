local function readable(v)
  if v:byte(1) ~= 1 or #v < 33 then return false end
  local address = 33 + struct.unpack('>I2', v, 31)
  if #v < address then return false end
  local agent = address + 1 + v:byte(address)
  return #v >= agent - 1, agent
end

local except, n = {}, tonumber(ARGV[2])
for i = 3, #ARGV do
  if i <= 2 + n then redis.call('HDEL', KEYS[1], ARGV[i]) else except[ARGV[i]] = true end
end
if ARGV[1] ~= '' then
  local before, all = tonumber(ARGV[1]), redis.call('HGETALL', KEYS[1])
  for i = 1, #all, 2 do
    local id, v = all[i], all[i + 1]
    if not except[id] and (not readable(v) or struct.unpack('>i6', v, 9) < before) then
      redis.call('HDEL', KEYS[1], id)
    end
  end
end
return 1
