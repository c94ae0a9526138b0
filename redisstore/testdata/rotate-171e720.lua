local function readable(v)
  if v:byte(1) ~= 1 or #v < 33 then return false end
  local address = 33 + struct.unpack('>I2', v, 31)
  if #v < address then return false end
  local agent = address + 1 + v:byte(address)
  return #v >= agent - 1, agent
end

local function collect(n)

local t = redis.call('TIME')
local now = t[1] * 1000 + math.floor(t[2] / 1000)

  local sample = redis.call('HRANDFIELD', KEYS[1], n, 'WITHVALUES')
  for i = 1, #sample, 2 do
    local v = sample[i + 1]
    if readable(v) and struct.unpack('>i6', v, 21) + 60000 < now then redis.call('HDEL', KEYS[1], sample[i]) end
  end
end

local function extend(at)
  if redis.call('PEXPIREAT', KEYS[1], at, 'GT') == 1 or redis.call('PTTL', KEYS[1]) ~= -1 then return end
  if redis.call('HLEN', KEYS[1]) > 64 then return end
  local last = tonumber(at)
  for _, v in ipairs(redis.call('HVALS', KEYS[1])) do
    if not readable(v) then return end
    last = math.max(last, struct.unpack('>i6', v, 21) + 60000)
  end
  redis.call('PEXPIREAT', KEYS[1], string.format('%.0f', last))
end

local v = redis.call('HGET', KEYS[1], ARGV[1])
if not v then return false end
local ok, agent = readable(v)
if not ok then return redis.error_reply('ERR the session record has an unknown version or is malformed') end
local sections = v:find('\0', agent, true)
local _, generation, created, rotated, expires = struct.unpack('>BI7i6i6i6', v)
local from = tonumber(ARGV[2])
if generation == from and rotated <= tonumber(ARGV[4]) then
  generation = from + 1
elseif generation < from then
  generation = from
else
  return {0, v}
end
rotated = tonumber(ARGV[3])
v = struct.pack('>BI7i6i6i6', 1, generation, created, rotated, tonumber(ARGV[5])) ..
  v:sub(27, 32 + struct.unpack('>I2', v, 31)) .. ARGV[7] .. (sections and v:sub(sections) or '')
redis.call('HSET', KEYS[1], ARGV[1], v)
if redis.call('HLEN', KEYS[1]) > 1 then collect(2) end
extend(ARGV[6])
return {1, v}
