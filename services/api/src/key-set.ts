import { type Logger, withDeadline } from '@realtime-service/telemetry';
import { type CryptoKey, createLocalJWKSet, exportSPKI, type JSONWebKeySet } from 'jose';
import { z } from 'zod';
import { ProblemError } from './problem.ts';

/** At most one fetch in this time, whatever the provider does and however many unknown keys callers name. */
const fetchSpacingMs = 30_000;
/** With the life of a verified token in the cache (60 s) a withdrawn key is refused within 5 minutes. */
const refreshEveryMs = 200_000;
/** From another region, with names to be looked up and TLS; by the first fetch of a process in which all is cold. */
const defaultFetchWithinMs = 5_000;
/** No caller waits longer, nor does a start: the fetch goes on for those who come after. */
const waitAtMostMs = 500;
const maxBytes = 262_144;
/** How long the last good set serves while the provider is down. */
const maxAgeMs = 24 * 3_600_000;

/** Only what may sign; Keycloak lists its encryption key beside it. Entries that we cannot read are none of ours. */
const SigningKey = z.looseObject({
  kty: z.enum(['RSA', 'EC', 'OKP']),
  kid: z.string().min(1),
  use: z.literal('sig').optional(),
});
const Document = z.object({ keys: z.array(z.unknown()).max(100) });

/** What of a token's header names a key. */
export type KeyHeader = {
  readonly alg: string;
  readonly kid: string;
};

/** One key, in the two forms that verifiers take. */
interface PublicKey {
  readonly key: CryptoKey;
  readonly pem: string;
}

export interface KeySet {
  /**
   * The public key that a token's header names, of the type that its algorithm needs; undefined where the issuer has
   * none.
   * @throws {ProblemError} 503 without a set of keys: nothing is known of any token then
   */
  readonly find: (header: KeyHeader) => Promise<PublicKey | undefined>;
  /**
   * The same, for whom "not yet" must not pass for "no": undefined only where the issuer has been asked since.
   * @throws {ProblemError} 503 as above, and while the issuer is not to be asked again or does not answer
   */
  readonly findForCertain: KeySet['find'];
  /** Fetches the set now and from then on every few minutes. */
  readonly start: () => Promise<void>;
  readonly stop: () => void;
  /** Time since the last good fetch; undefined before it, and once the set is too old to serve. */
  readonly ageMs: () => number | undefined;
}

interface KeySetOptions {
  readonly url: string;
  readonly logger: Logger;
  /** Milliseconds by a clock that nobody sets. */
  readonly now?: () => number;
  /** Milliseconds; 5,000 by default. */
  readonly fetchWithinMs?: number;
}

type Resolve = ReturnType<typeof createLocalJWKSet>;

/** @throws when the answer is anything but a small JSON document with at least one signing key */
const fetchKeys = async (url: string, withinMs: number): Promise<Resolve> => {
  const response = await fetch(url, {
    headers: { accept: 'application/json' },
    redirect: 'error',
    signal: AbortSignal.timeout(withinMs),
  });
  if (response.status !== 200 || response.body === null) throw new Error(`The key address answered ${response.status}`);
  const chunks: Uint8Array[] = [];
  let bytes = 0;
  for await (const chunk of response.body) {
    bytes += chunk.length;
    if (bytes > maxBytes) throw new Error(`The key set is larger than ${maxBytes} bytes`);
    chunks.push(chunk);
  }
  const document = Document.parse(JSON.parse(Buffer.concat(chunks).toString('utf8')));
  const keys = document.keys.flatMap((key) => SigningKey.safeParse(key).data ?? []);
  if (keys.length === 0) throw new Error('The key set holds no signing key');
  return createLocalJWKSet({ keys } as JSONWebKeySet);
};

const orGoOn = (work: Promise<void>): Promise<void> => withDeadline(work, waitAtMostMs).catch(() => {});

/** The issuer's signing keys (RFC 7517), kept so that neither the provider's troubles nor made-up key ids do harm. */
export const createKeySet = ({
  url,
  logger,
  now = () => performance.now(),
  fetchWithinMs = defaultFetchWithinMs,
}: KeySetOptions): KeySet => {
  let keys:
    | { readonly resolve: Resolve; readonly used: Map<string, PublicKey>; readonly fetchedAtMs: number }
    | undefined;
  let attemptedAtMs = -Infinity;
  let underWay: Promise<void> | undefined;
  let timer: NodeJS.Timeout | undefined;
  let isStopped = false;

  const current = () => (keys !== undefined && now() - keys.fetchedAtMs < maxAgeMs ? keys : undefined);

  const refresh = async (): Promise<void> => {
    attemptedAtMs = now();
    try {
      keys = { resolve: await fetchKeys(url, fetchWithinMs), used: new Map(), fetchedAtMs: attemptedAtMs };
    } catch (error) {
      logger.warn({ url, err: error, has_keys: current() !== undefined }, 'identity keys could not be fetched');
    }
  };

  /** Joins the fetch that is under way, or begins one where the spacing allows it. */
  const tryRefresh = (): Promise<void> => {
    if (underWay === undefined && now() - attemptedAtMs >= fetchSpacingMs)
      underWay = refresh().finally(() => {
        underWay = undefined;
      });
    return underWay ?? Promise.resolve();
  };

  const lookUp = async (header: KeyHeader): Promise<PublicKey | undefined> => {
    const held = current();
    if (held === undefined) return undefined;
    const name = `${header.alg} ${header.kid}`;
    const known = held.used.get(name);
    if (known !== undefined) return known;
    try {
      const key = await held.resolve(header);
      const found = { key, pem: await exportSPKI(key) };
      held.used.set(name, found);
      return found;
    } catch {
      // No key of this id and type, several of them, or one that cannot be imported.
      return undefined;
    }
  };

  const keepFresh = async (): Promise<void> => {
    await tryRefresh();
    if (isStopped) return;
    const isGood = keys !== undefined && now() - keys.fetchedAtMs < fetchSpacingMs;
    timer = setTimeout(() => void keepFresh(), isGood ? refreshEveryMs : fetchSpacingMs);
  };

  const findAfter = async (
    waitFor: (fetch: Promise<void>) => Promise<void>,
    header: KeyHeader,
  ): Promise<PublicKey | undefined> => {
    const known = await lookUp(header);
    if (known !== undefined) return known;
    await waitFor(tryRefresh());
    if (current() === undefined) throw new ProblemError('store_unavailable', { reason: 'no_keys' });
    return lookUp(header);
  };

  return {
    find: (header) => findAfter(orGoOn, header),
    findForCertain: async (header) => {
      const cameAtMs = now();
      // Who asks so does not ask again: for as long as the fetch takes.
      const found = await findAfter((fetch) => fetch, header);
      if (found !== undefined || (keys !== undefined && keys.fetchedAtMs >= cameAtMs)) return found;
      const retryAfterSeconds = (attemptedAtMs + fetchSpacingMs - now()) / 1000;
      throw new ProblemError('store_unavailable', { reason: 'key_not_known_yet', retryAfterSeconds });
    },
    start: () => orGoOn(keepFresh()),
    stop: () => {
      isStopped = true;
      clearTimeout(timer);
    },
    ageMs: () => {
      const held = current();
      return held === undefined ? undefined : now() - held.fetchedAtMs;
    },
  };
};
