const secretNames = [
  'authorization',
  'cookie',
  'token',
  'access_?token',
  'refresh_?token',
  'logout_?token',
  'participant_?token',
  'secret',
  'api_?secret',
  'client_?secret',
  'password',
  'turn_?password',
  'stream_?key',
  'email',
];

/**
 * A member of a JSON object whose name says that its value, a text or a list of texts, is nobody's business; with the
 * spaces of others' JSON, and also where the text ends within it.
 */
const secretMember = new RegExp(
  `"(${secretNames.join('|')})"\\s*:\\s*(?:"(?:[^"\\\\]|\\\\.)*(?:"|\\\\?$)|\\[[^\\]]*(?:\\]|$))`,
  'gi',
);

/** Any JOSE object: a header begins with `{"`, which is `eyJ`. One that was cut short still shows its claims. */
const jwt = /eyJ[\w-]{6,}(?:\.[\w-]*){0,4}/g;
const bearer = /\b(Bearer|Basic) +[\w.~+/=-]+/gi;
const urlCredentials = /:\/\/[^\s/:@"]*:[^\s/@"]+@/g;

/**
 * Free text without the secrets that it may quote: LiveKit's SDKs put whole tokens into error messages, drivers put
 * whole URLs. For everything that becomes a log line, a span's status or an error body.
 */
export function scrub(text: string): string {
  return text.replace(jwt, '[jwt]').replace(bearer, '$1 [redacted]').replace(urlCredentials, '://[redacted]@');
}

/**
 * Lines of JSON without secrets, by name at any depth and by pattern anywhere. Working on finished lines is both sure
 * and cheap: pino's own `redact` needs each path spelt out, and takes twenty times as long from the third level on.
 */
export function scrubLines(lines: string): string {
  return scrub(lines.replace(secretMember, '"$1":"[redacted]"'));
}
