-- Delete the named keys. KEYS: lease, then the keys (none: only look at the token). ARGV: token.
local refusal = review_token(KEYS[1], ARGV[1])
if refusal then
  return refusal
end
if #KEYS == 1 then
  return {'WIPED', 0}
end
return {'WIPED', redis.call('UNLINK', unpack(KEYS, 2))}
