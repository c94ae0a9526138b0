package redisstore

// What the server runs. Each script touches KEYS[1] alone, so that it is one
// step wherever a Cluster keeps that key.
//
// Redis 7.0 is needed for GT, and replicates what a script did rather than the
// script, so that the server's clock and its random choice are allowed.

// luaNow sets now, the server's clock in Unix milliseconds.
const luaNow = `
local t = redis.call('TIME')
local now = t[1] * 1000 + math.floor(t[2] / 1000)
`

// luaReadable defines readable: whether v is a record of this version, and long
// enough for what it says it holds.
const luaReadable = `
local function readable(v)
  return v:byte(1) == 1 and #v >= 32 and #v > 32 + struct.unpack('>I2', v, 31)
end
`

// luaCollect defines collect, which looks at n random sessions and deletes those
// that ended more than a minute ago.
const luaCollect = `
local function collect(n)
` + luaNow + `
  local some = redis.call('HRANDFIELD', KEYS[1], n, 'WITHVALUES')
  for i = 1, #some, 2 do
    local v = some[i + 1]
    if readable(v) and struct.unpack('>i6', v, 21) + 60000 < now then redis.call('HDEL', KEYS[1], some[i]) end
  end
end
`

// luaKeep defines keep, which lets the key live until the time at at least. GT
// leaves a key without an end alone. That is a new one, or one that lost it
// (PERSIST, a careless RESTORE), whose other sessions may end later. They are
// looked through where they are few.
const luaKeep = `
local function keep(at)
  if redis.call('PEXPIREAT', KEYS[1], at, 'GT') == 1 or redis.call('PTTL', KEYS[1]) ~= -1 then return end
  if redis.call('HLEN', KEYS[1]) > 64 then return end
  local last = tonumber(at)
  for _, v in ipairs(redis.call('HVALS', KEYS[1])) do
    if not readable(v) then return end
    last = math.max(last, struct.unpack('>i6', v, 21) + 60000)
  end
  redis.call('PEXPIREAT', KEYS[1], string.format('%.0f', last))
end
`

// luaCreate: ARGV is the ID, the record, and when it may be collected. It
// returns 1 if the record is this call's: the driver repeats a call whose
// answer was lost.
const luaCreate = luaReadable + luaCollect + luaKeep + `
collect(4)
if redis.call('HSETNX', KEYS[1], ARGV[1], ARGV[2]) == 0 then
  if redis.call('HGET', KEYS[1], ARGV[1]) == ARGV[2] then return 1 end
  return 0
end
keep(ARGV[3])
return 1
`

// luaRotate: ARGV is the ID, the generation, use.At, use.Rested, use.ExpiresAt
// and when that may be collected, in milliseconds, and the device. It returns
// whether the session moved, and its record; nil where there is none. A lone
// session, which most are, looks for no others that have ended.
const luaRotate = luaReadable + luaCollect + luaKeep + `
local v = redis.call('HGET', KEYS[1], ARGV[1])
if not v then return false end
if not readable(v) then return redis.error_reply('ERR a session record has an unknown version, or is broken') end
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
  v:sub(27, 32 + struct.unpack('>I2', v, 31)) .. ARGV[7]
redis.call('HSET', KEYS[1], ARGV[1], v)
if redis.call('HLEN', KEYS[1]) > 1 then collect(2) end
keep(ARGV[6])
return {1, v}
`

// luaRevoke: ARGV is the cut in milliseconds, or nothing if only the named
// sessions end, how many are named, these, and those that the cut spares. It
// returns how many others cannot be read: these stay.
const luaRevoke = luaReadable + `
local spared, left, named = {}, 0, tonumber(ARGV[2])
for i = 3, #ARGV do
  if i <= 2 + named then redis.call('HDEL', KEYS[1], ARGV[i]) else spared[ARGV[i]] = true end
end
if ARGV[1] ~= '' then
  local cut, all = tonumber(ARGV[1]), redis.call('HGETALL', KEYS[1])
  for i = 1, #all, 2 do
    local id, v = all[i], all[i + 1]
    if not spared[id] then
      if not readable(v) then
        left = left + 1
      elseif struct.unpack('>i6', v, 9) < cut then
        redis.call('HDEL', KEYS[1], id)
      end
    end
  end
end
return left
`

// luaAnnounce: ARGV is Until and when the entry may be collected, in
// milliseconds, and the revocation. Entries whose Until has passed leave, a few
// at a time, and never others: that the last one seen is still there shows that
// the history is the same.
const luaAnnounce = luaNow + `
for _, e in ipairs(redis.call('XRANGE', KEYS[1], '-', '+', 'COUNT', 8)) do
  if tonumber(e[2][2]) < now then redis.call('XDEL', KEYS[1], e[1]) end
end
redis.call('XADD', KEYS[1], '*', 'u', ARGV[1], 'r', ARGV[3])
if redis.call('PEXPIREAT', KEYS[1], ARGV[2], 'GT') == 0 and redis.call('PTTL', KEYS[1]) == -1 and
  redis.call('XLEN', KEYS[1]) == 1 then
  redis.call('PEXPIREAT', KEYS[1], ARGV[2])
end
return 1
`

// luaChanges: ARGV is a position: the server's run, the last entry that was
// seen and its Until; all empty for the beginning. It returns the run, whether
// the position's entry is there, and what came after it; nil if the position is
// of another history. An entry that left in its time may have taken its stream
// along, so then everything is read: nothing depends on the order of IDs in two
// streams.
const luaChanges = luaNow + `
local info = redis.pcall('INFO', 'server')
local run = type(info) == 'string' and info:match('run_id:(%x+)') or ''
local id, from = ARGV[2], '-'
if id ~= '' and ARGV[1] ~= run then return false end
if id ~= '' and id ~= '0-0' then
  local e = redis.call('XRANGE', KEYS[1], id, id)[1]
  if e and e[2][2] == ARGV[3] then
    from = '(' .. id
  elseif tonumber(ARGV[3]) >= now then
    return false
  end
end
return {run, from == '-' and 0 or 1, redis.call('XRANGE', KEYS[1], from, '+')}
`
