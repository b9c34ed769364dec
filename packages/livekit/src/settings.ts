import { z } from 'zod';

/** One entry of LiveKit's `keys:`. */
export interface LivekitKey {
  readonly apiKey: string;
  readonly secret: string;
}

/** LiveKit takes a token so long before its `nbf` and after its `exp` (go-jose's `DefaultLeeway`). */
export const tokenLeewaySeconds = 60;

const toWs = { 'ws:': 'ws:', 'wss:': 'wss:', 'http:': 'ws:', 'https:': 'wss:' } as const;
const toHttp = { 'ws:': 'http:', 'wss:': 'https:', 'http:': 'http:', 'https:': 'https:' } as const;

/**
 * Maps the scheme, keeps host and path, and drops trailing slashes. LiveKit's clients append `/rtc`, its server SDK
 * `/twirp`, so a path prefix must survive.
 */
const livekitUrl = (schemes: Readonly<Record<string, string>>) =>
  z.string().transform((text, context) => {
    const url = URL.parse(text);
    const scheme = url === null ? undefined : schemes[url.protocol];
    if (url === null || scheme === undefined || url.host === '') {
      context.addIssue({ code: 'custom', message: 'must be a ws, wss, http or https URL' });
      return z.NEVER;
    }
    if (url.username !== '' || url.password !== '' || url.search !== '' || url.hash !== '') {
      context.addIssue({ code: 'custom', message: 'must have no credentials, query or fragment' });
      return z.NEVER;
    }
    return `${scheme}//${url.host}${url.pathname.replace(/\/+$/, '')}`;
  });

const keyPair = /^\s*([\w.-]+)\s*:\s*([\x21-\x7e]+?)\s*$/;

/** `key: secret`, several separated by newlines or commas, as LiveKit's own variable has it. */
export const LivekitKeys = z.string().transform((text, context): [LivekitKey, ...LivekitKey[]] => {
  const entries = text.split(/[\n,]/).filter((entry) => entry.trim() !== '');
  const keys = entries.flatMap((entry): LivekitKey[] => {
    const [, apiKey, secret] = keyPair.exec(entry) ?? [];
    return apiKey === undefined || secret === undefined ? [] : [{ apiKey, secret }];
  });
  const [first, ...others] = keys;
  const isDistinct = new Set(keys.map(({ apiKey }) => apiKey)).size === keys.length;
  if (first !== undefined && keys.length === entries.length && isDistinct) return [first, ...others];
  // The text holds secrets, so the message quotes none of it.
  context.addIssue({
    code: 'custom',
    message: 'must be "key: secret" pairs with distinct keys, separated by newlines or commas',
  });
  return z.NEVER;
});

const minSecretLength = 32;

/** The settings by which both services know LiveKit; a service combines it with its own by `.and()`. */
export const LivekitSettings = z
  .object({
    LIVEKIT_URL: livekitUrl(toWs).describe(
      'Where clients reach LiveKit; http(s) is handed out as ws(s), a path is kept',
    ),
    LIVEKIT_API_URL: livekitUrl(toHttp).optional().describe('Where we reach LiveKit; LIVEKIT_URL by default'),
    LIVEKIT_KEYS: LivekitKeys.describe('"key: secret" pairs, separated by newlines or commas; the first one signs'),
    NODE_ENV: z
      .string()
      .optional()
      .describe(`With \`production\` secrets in LIVEKIT_KEYS must have ${minSecretLength} characters or more`),
  })
  .transform(({ LIVEKIT_URL, LIVEKIT_API_URL, LIVEKIT_KEYS, NODE_ENV }, context) => {
    if (NODE_ENV === 'production' && LIVEKIT_KEYS.some(({ secret }) => secret.length < minSecretLength))
      context.addIssue({
        code: 'custom',
        path: ['LIVEKIT_KEYS'],
        message: `must have secrets of at least ${minSecretLength} characters`,
      });
    return {
      livekit: {
        publicUrl: LIVEKIT_URL,
        apiUrl: LIVEKIT_API_URL ?? LIVEKIT_URL.replace(/^ws/, 'http'),
        keys: LIVEKIT_KEYS,
      },
    };
  });
export type LivekitSettings = z.infer<typeof LivekitSettings>;
