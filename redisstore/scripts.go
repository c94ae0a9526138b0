package redisstore

// This file has the scripts. Each script of a Store uses only KEYS[1], so that it
// runs atomically on the node of a Cluster that has the key. All keys of a Limiter
// are in one slot.
//
// Redis 7.0 is required for the option GT of PEXPIREAT. It replicates the
// commands that a script ran, not the script, so scripts may use the server's
// clock and random numbers.

// luaNow sets now to the server's time in Unix milliseconds.
const luaNow = `
local t = redis.call('TIME')
local now = t[1] * 1000 + math.floor(t[2] / 1000)
`

// luaReadable defines readable, which reports whether v is a record of a version
// that this package knows and is not truncated. It also returns the offsets of
// the user agent and of the data.
const luaReadable = `
local function readable(v)
  local version = v:byte(1)
  local data = version == 1 and 33 or version == 2 and 66
  if not data or #v < data then return false end
  local address = data + struct.unpack('>I2', v, 31)
  if #v < address then return false end
  local agent = address + 1 + v:byte(address)
  return #v >= agent - 1, agent, data
end
`

// luaCollect defines collect, which checks n random sessions and deletes those
// that ended more than a minute ago.
const luaCollect = `
local function collect(n)
` + luaNow + `
  local sample = redis.call('HRANDFIELD', KEYS[1], n, 'WITHVALUES')
  for i = 1, #sample, 2 do
    local v = sample[i + 1]
    if readable(v) and struct.unpack('>i6', v, 21) + 60000 < now then redis.call('HDEL', KEYS[1], sample[i]) end
  end
end
`

// luaExtend defines extend, which makes the key expire no earlier than at. With
// GT, PEXPIREAT does nothing if the key has no expiry. Such a key is new, or
// has lost its expiry (PERSIST, a RESTORE without TTL) and may have sessions
// that end later than at. In that case extend reads all sessions, if there are
// at most 64, and sets the expiry by the last of them.
const luaExtend = `
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
`

// luaCreate implements Create. ARGV is the ID, the record, and the time from
// which it may be collected. The script returns 1 if the key now has this
// record, also if an earlier attempt stored it, since the driver retries a
// command whose reply was lost. It returns 0 if there is another record of that
// ID.
const luaCreate = luaReadable + luaCollect + luaExtend + `
collect(4)
if redis.call('HSETNX', KEYS[1], ARGV[1], ARGV[2]) == 0 then
  if redis.call('HGET', KEYS[1], ARGV[1]) == ARGV[2] then return 1 end
  return 0
end
extend(ARGV[3])
return 1
`

// luaSections defines sections, which returns the RetryTag of a record, or the
// empty string, and the other sections with what follows the last complete one.
const luaSections = `
local function sections(v, agent)
  local tag, others = '', ''
  local at = (v:find('\0', agent, true) or #v) + 1
  while at + 2 <= #v do
    local n = struct.unpack('>I2', v, at + 1)
    local after = at + 3 + n
    if after > #v + 1 then break end
    if v:byte(at) ~= 1 or n ~= 17 then
      others = others .. v:sub(at, after - 1)
    elseif tag == '' and v:byte(at + 3) == v:byte(8) then
      tag = v:sub(at + 4, after - 1)
    end
    at = after
  end
  return tag, others .. v:sub(at)
end
`

// luaRotate implements Rotate. ARGV is the ID; From; At, NotAfter and ExpiresAt
// of the rotation and the time from which the session may be collected, in
// milliseconds; the device as in the record; and RetryTag, SpentTag and Key. The
// script returns whether it rotated the session (1 or 0) and the current record,
// or nil if there is none. It collects other sessions only if there are any;
// most subjects have one.
const luaRotate = luaReadable + luaCollect + luaExtend + luaSections + `
local v = redis.call('HGET', KEYS[1], ARGV[1])
if not v then return false end
local ok, agent, data = readable(v)
if not ok then return redis.error_reply('ERR the session record has an unknown version or is malformed') end
local key = v:sub(33, data - 1)
if key ~= '' and key ~= ARGV[10] then return {0, v} end
local _, generation, created, rotated = struct.unpack('>BI7i6i6', v)
local from = tonumber(ARGV[2])
if generation == from and rotated <= tonumber(ARGV[4]) then
  generation = from + 1
elseif generation < from then
  generation = from
else
  return {0, v}
end
local tag, others = sections(v, agent)
if tag ~= '' and tag == ARGV[9] then tag = '' else tag = ARGV[8] end
if tag ~= '' then others = '\1\0\17' .. string.char(generation % 256) .. tag .. others end
if others ~= '' then others = '\0' .. others end
v = struct.pack('>BI7i6i6i6', ARGV[10] == '' and 1 or 2, generation, created, tonumber(ARGV[3]), tonumber(ARGV[5])) ..
  v:sub(27, 32) .. ARGV[10] .. v:sub(data, data - 1 + struct.unpack('>I2', v, 31)) .. ARGV[7] .. others
redis.call('HSET', KEYS[1], ARGV[1], v)
if redis.call('HLEN', KEYS[1]) > 1 then collect(2) end
extend(ARGV[6])
return {1, v}
`

// luaSpend implements Spend. KEYS[1] is the key of the record. ARGV is a random
// number and the time at which the record expires, in milliseconds. The script
// returns 1 if the record now has this number, also if an earlier attempt stored
// it, since the driver retries a command whose reply was lost. It returns 0 if
// the record has another number.
const luaSpend = `
if redis.call('SET', KEYS[1], ARGV[1], 'NX', 'PXAT', ARGV[2]) then return 1 end
if redis.call('GET', KEYS[1]) == ARGV[1] then return 1 end
return 0
`

// luaRevoke deletes sessions. ARGV is Before in milliseconds with All,
// otherwise the empty string; the number of IDs in Sessions; these IDs; and the
// IDs in Except. With All, it also deletes records that cannot be read, since
// their creation time is unknown.
const luaRevoke = luaReadable + `
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
`

// luaPublish adds a revocation to the feed. ARGV is Until and the time from
// which the entry may be collected, both in milliseconds, and the revocation as
// JSON.
//
// The script deletes entries whose Until has passed, and never others: Changes
// relies on this when it looks up the entry of a position. It does not delete the
// newest entry, since that is the position of the readers.
//
// The script checks 32 entries, and continues while at least half of them are
// deleted, up to 1,024 entries. So it takes bounded time, every entry is
// checked repeatedly, and a few calls suffice to delete many entries. The last
// entry checked is stored as the last member, h, of the newest revocation,
// unless the script has reached the end of the stream. It is not a field of the
// entry because entries must have exactly two fields. A value of h that is not
// an ID counts as none. If the user may not call XREVRANGE, the script starts
// at the first entry each time.
const luaPublish = luaNow + `
local checked = ''
local newest = redis.pcall('XREVRANGE', KEYS[1], '+', '-', 'COUNT', 1)
if newest[1] then
  for f = 1, #newest[1][2] - 1, 2 do
    local ms, n = newest[1][2][f + 1]:match(',"h":"(%d+)%-(%d+)"}$')
    if newest[1][2][f] == 'r' and ms and #ms < 20 and #n < 20 then checked = ms .. '-' .. n end
  end
end
for _ = 1, 32 do
  local es = redis.call('XRANGE', KEYS[1], checked ~= '' and '(' .. checked or '-', '+', 'COUNT', 33)
  local deleted = 0
  for i = 1, math.min(#es - 1, 32) do
    checked = es[i][1]
    for f = 1, #es[i][2] - 1, 2 do
      if es[i][2][f] == 'u' then
        if (tonumber(es[i][2][f + 1]) or now) < now then
          redis.call('XDEL', KEYS[1], checked)
          deleted = deleted + 1
        end
        break
      end
    end
  end
  if #es < 33 then
    checked = ''
    break
  end
  if deleted < 16 then break end
end
local entry = ARGV[3]
if checked ~= '' then entry = entry:sub(1, -2) .. ',"h":"' .. checked .. '"}' end
redis.call('XADD', KEYS[1], '*', 'u', ARGV[1], 'r', entry)
if redis.call('PEXPIREAT', KEYS[1], ARGV[2], 'GT') == 0 and redis.call('PTTL', KEYS[1]) == -1 and
  redis.call('XLEN', KEYS[1]) == 1 then
  redis.call('PEXPIREAT', KEYS[1], ARGV[2])
end
return 1
`

// luaChanges reads a page of the feed. ARGV is a position: the server's run,
// the ID of the last entry that was returned, and its Until; all are empty for
// the beginning. The script returns the run, whether the entry of the position
// exists (1 or 0), the entries after it, and whether there are more (1 or 0).
// It returns nil if entries may have been lost since the position: the run
// differs, or the entry is missing or differs although its time has not passed.
//
// If the entry is missing and its time has passed, the script reads the feed
// from the beginning. The stream may have expired and been created again, and
// IDs of two streams cannot be compared.
//
// A page ends after 512 entries, or with the entry with which it reaches 256
// KiB, so that the server is not blocked for long.
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
local found, page, size, more = from == '-' and 0 or 1, {}, 0, 0
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
return {run, found, page, more}
`

// luaTake implements Limiter.Take. Each bucket has two KEYS, which are those of its
// kind: a sorted set with the time at which its level reaches 0, and a hash with the
// time of its last attempt. So its level is the time until the first, divided by its
// decay, and the arithmetic is exact. ARGV is the time, or the empty string for the
// server's; and for each bucket its key, burst, decay, and how many buckets its kind
// may have. All times are in milliseconds. The script returns the longest wait and
// the index of its bucket; both are 0 if the attempt was counted.
//
// The keys expire when the level of their last bucket reaches 0. A call also removes
// up to four buckets of each kind whose level is 0.
const luaTake = luaNow + `
now = tonumber(ARGV[1]) or now
local levels, wait, index = {}, 0, 0
for i = 1, #KEYS / 2 do
  local key, burst, decay = ARGV[4 * i - 2], tonumber(ARGV[4 * i - 1]), tonumber(ARGV[4 * i])
  local ends = tonumber(redis.call('ZSCORE', KEYS[2 * i - 1], key) or now)
  local last = tonumber(redis.call('HGET', KEYS[2 * i], key) or now) or now
  if last > now then
    ends = ends - (last - now)
    last = now
    redis.call('ZADD', KEYS[2 * i - 1], 'XX', string.format('%.0f', ends), key)
    redis.call('HSET', KEYS[2 * i], key, string.format('%.0f', last))
  end
  levels[i] = ends
  local excess = math.ceil((ends - last) / decay) - burst
  if excess >= 0 then
    local left = last + math.min(1000 * 2 ^ math.min(excess, 10), 900000) - now
    if left > wait then wait, index = left, i - 1 end
  end
end
if wait > 0 then return {wait, index} end
for i = 1, #KEYS / 2 do
  local ends, lasts, key = KEYS[2 * i - 1], KEYS[2 * i], ARGV[4 * i - 2]
  local burst, decay, limit = tonumber(ARGV[4 * i - 1]), tonumber(ARGV[4 * i]), tonumber(ARGV[4 * i + 1])
  local over = redis.call('ZRANGEBYSCORE', ends, '-inf', string.format('%.0f', now), 'LIMIT', 0, 4)
  if #over == 0 and redis.call('ZCARD', ends) >= limit and not redis.call('ZSCORE', ends, key) then
    over = redis.call('ZRANGE', ends, 0, 0)
  end
  for _, other in ipairs(over) do
    redis.call('ZREM', ends, other)
    redis.call('HDEL', lasts, other)
  end
  local at = math.min(math.max(levels[i], now) + decay, now + (burst + 10) * decay)
  redis.call('ZADD', ends, string.format('%.0f', at), key)
  redis.call('HSET', lasts, key, string.format('%.0f', now))
  for _, k in ipairs({ends, lasts}) do
    if redis.call('PTTL', k) < at - now then redis.call('PEXPIRE', k, string.format('%.0f', at - now)) end
  end
end
return {0, 0}
`

// luaSettle implements Limiter.Settle. KEYS are as for luaTake. ARGV is, for each
// bucket, its key, and its decay to subtract 1 from its level, or 0 to clear it.
const luaSettle = `
for i = 1, #KEYS / 2 do
  local key, decay = ARGV[2 * i - 1], tonumber(ARGV[2 * i])
  local ends = tonumber(redis.call('ZSCORE', KEYS[2 * i - 1], key) or 0)
  local last = tonumber(redis.call('HGET', KEYS[2 * i], key) or 0) or 0
  if decay > 0 and ends - decay > last then
    redis.call('ZADD', KEYS[2 * i - 1], 'XX', string.format('%.0f', ends - decay), key)
  else
    redis.call('ZREM', KEYS[2 * i - 1], key)
    redis.call('HDEL', KEYS[2 * i], key)
  end
end
return 1
`
