package redisstore

// What the server runs. Each script touches only KEYS[1], so that it is one step
// wherever a Cluster keeps that key.
//
// Redis 7.0 is needed for GT, and replicates what a script did rather than the
// script, so that the server's clock and its random choice are allowed.

// luaNow sets now, the server's clock in Unix milliseconds.
const luaNow = `
local t = redis.call('TIME')
local now = t[1] * 1000 + math.floor(t[2] / 1000)
`

// luaReadable defines readable, which reports whether v is a record of this
// version, and long enough for what it says it holds. It returns the place of
// the user agent too.
const luaReadable = `
local function readable(v)
  if v:byte(1) ~= 1 or #v < 33 then return false end
  local address = 33 + struct.unpack('>I2', v, 31)
  if #v < address then return false end
  local agent = address + 1 + v:byte(address)
  return #v >= agent - 1, agent
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
// session, which most are, looks for no others that have ended. The sections
// behind the user agent stay as they are.
const luaRotate = luaReadable + luaCollect + luaKeep + `
local v = redis.call('HGET', KEYS[1], ARGV[1])
if not v then return false end
local ok, agent = readable(v)
if not ok then return redis.error_reply('ERR a session record has an unknown version, or is broken') end
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
keep(ARGV[6])
return {1, v}
`

// luaRevoke: ARGV is the cut in milliseconds, or nothing if only the named
// sessions end, how many are named, these, and those that the cut spares. When a
// session was created whose record cannot be read is not known, so it ends too.
const luaRevoke = luaReadable + `
local spared, named = {}, tonumber(ARGV[2])
for i = 3, #ARGV do
  if i <= 2 + named then redis.call('HDEL', KEYS[1], ARGV[i]) else spared[ARGV[i]] = true end
end
if ARGV[1] ~= '' then
  local cut, all = tonumber(ARGV[1]), redis.call('HGETALL', KEYS[1])
  for i = 1, #all, 2 do
    local id, v = all[i], all[i + 1]
    if not spared[id] and (not readable(v) or struct.unpack('>i6', v, 9) < cut) then
      redis.call('HDEL', KEYS[1], id)
    end
  end
end
return 1
`

// luaAnnounce: ARGV is Until and when the entry may be collected, in
// milliseconds, and the revocation. Entries whose Until has passed leave,
// wherever they are, and never others: that the last one seen is still there
// shows that the history is the same. The newest stays until there is another,
// since readers have it as their position.
//
// The newest entry tells, as the last member of its revocation, h, the last one
// that was looked at, while there are others behind that. It is no field of its
// own, since processes of the version before read entries of two fields only.
// What is no ID counts as none. Each announcement looks at 32 more, and goes on
// for as long as at least half of them leave, up to 1,024. So an announcement
// takes bounded time, all entries are looked at again and again, and many that
// have passed leave within a few announcements. A server that does not permit
// XREVRANGE looks from the first entry each time.
const luaAnnounce = luaNow + `
local hand = ''
local newest = redis.pcall('XREVRANGE', KEYS[1], '+', '-', 'COUNT', 1)
if newest[1] then
  for f = 1, #newest[1][2] - 1, 2 do
    local ms, n = newest[1][2][f + 1]:match(',"h":"(%d+)%-(%d+)"}$')
    if newest[1][2][f] == 'r' and ms and #ms < 20 and #n < 20 then hand = ms .. '-' .. n end
  end
end
for _ = 1, 32 do
  local es = redis.call('XRANGE', KEYS[1], hand ~= '' and '(' .. hand or '-', '+', 'COUNT', 33)
  local left = 0
  for i = 1, math.min(#es - 1, 32) do
    hand = es[i][1]
    for f = 1, #es[i][2] - 1, 2 do
      if es[i][2][f] == 'u' then
        if (tonumber(es[i][2][f + 1]) or now) < now then
          redis.call('XDEL', KEYS[1], hand)
          left = left + 1
        end
        break
      end
    end
  end
  if #es < 33 then
    hand = ''
    break
  end
  if left < 16 then break end
end
local entry = ARGV[3]
if hand ~= '' then entry = entry:sub(1, -2) .. ',"h":"' .. hand .. '"}' end
redis.call('XADD', KEYS[1], '*', 'u', ARGV[1], 'r', entry)
if redis.call('PEXPIREAT', KEYS[1], ARGV[2], 'GT') == 0 and redis.call('PTTL', KEYS[1]) == -1 and
  redis.call('XLEN', KEYS[1]) == 1 then
  redis.call('PEXPIREAT', KEYS[1], ARGV[2])
end
return 1
`

// luaChanges: ARGV is a position: the server's run, the last entry that was
// seen and its Until; all empty for the beginning. It returns the run, whether
// the position's entry is there, what came after it, and whether there is more;
// nil if the position is of another history. An entry that left in its time may
// have taken its stream along, so then everything is read: nothing depends on
// the order of IDs in two streams.
//
// A page ends after 512 entries, or with the entry that makes it 256 KiB, so
// that the server answers others soon.
const luaChanges = luaNow + `
local function untilOf(e)
  for f = 1, #e[2] - 1, 2 do
    local v = e[2][f + 1]
    if e[2][f] == 'u' then return #v <= 18 and v:match('^%-?%d+$') or '0' end
  end
  return '0'
end
local info = redis.pcall('INFO', 'server')
local run = type(info) == 'string' and info:match('run_id:(%x+)') or ''
local id, from = ARGV[2], '-'
if id ~= '' and ARGV[1] ~= run then return false end
if id ~= '' and id ~= '0-0' then
  local e = redis.call('XRANGE', KEYS[1], id, id)[1]
  if e and untilOf(e) == ARGV[3] then
    from = '(' .. id
  elseif tonumber(ARGV[3]) >= now then
    return false
  end
end
local there, page, size, more = from == '-' and 0 or 1, {}, 0, 0
while true do
  local es = redis.call('XRANGE', KEYS[1], from, '+', 'COUNT', 64)
  for _, e in ipairs(es) do
    if #page == 512 or size >= 262144 then
      more = 1
      break
    end
    page[#page + 1] = e
    for _, v in ipairs(e[2]) do size = size + #v end
  end
  if more == 1 or #es < 64 then break end
  from = '(' .. es[64][1]
end
return {run, there, page, more}
`
