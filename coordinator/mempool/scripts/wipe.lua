-- Delete the named keys. KEYS: lease, then the keys (none: only look at the token). ARGV: token.
local newer = find_newer_token(KEYS[1], ARGV[1])
if newer then
  return {'STALE_LEASE', newer}
end
if #KEYS == 1 then
  return {'WIPED', 0}
end
return {'WIPED', redis.call('UNLINK', unpack(KEYS, 2))}
