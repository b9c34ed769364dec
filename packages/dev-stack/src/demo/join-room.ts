/** What a client has to do around LiveKit's SDK. Runs in browsers and in Node. */

/** The answer of the join route, as far as clients use it. */
export interface JoinAnswer {
  readonly server_url: string;
  readonly participant_token: string;
  readonly participant_identity: string;
  readonly participant_name: string;
  readonly role: string;
  readonly permissions: { readonly publishSources: readonly string[]; readonly moderate: boolean };
}

/** A problem document (RFC 9457) with the code of the api's closed list. */
export interface JoinProblem {
  readonly status: number;
  readonly code: string;
  readonly title: string;
  readonly opens_at?: string;
}

export type JoinOutcome =
  | { readonly kind: 'admitted'; readonly answer: JoinAnswer }
  | { readonly kind: 'refused'; readonly problem: JoinProblem };

export interface JoinOptions {
  readonly apiUrl: string;
  readonly roomId: string;
  readonly accessToken: string;
  readonly body?: { readonly device_id?: string; readonly take_over?: boolean; readonly at_least?: string };
  /** Ends waiting and asking; the promise then rejects. */
  readonly signal?: AbortSignal;
  /** Told before each wait, milliseconds. */
  readonly onWait?: (delayMs: number) => void;
  /** For tests. */
  readonly fetch?: typeof fetch;
  readonly wait?: (delayMs: number, signal?: AbortSignal) => Promise<void>;
}

const maxAttempts = 8;
const firstDelayMs = 250;
const maxDelayMs = 8_000;

/**
 * Asks for a LiveKit token, and asks again while the answer is 503 or none at all: livekit-client repeats neither
 * before its first connection. Waits grow from a quarter of a second to eight, spread so that clients do not come back
 * in step, and are never shorter than `Retry-After`. Every other answer is final. Rejects when nothing was ever answered.
 */
export async function joinRoom(options: JoinOptions): Promise<JoinOutcome> {
  const { signal, onWait, wait = waitFor } = options;
  for (let attempt = 1; ; attempt += 1) {
    const result = await ask(options).catch((error: unknown) => {
      if (signal?.aborted || attempt === maxAttempts || !(error instanceof TypeError)) throw error;
      return { retryAfterMs: 0 };
    });
    if ('outcome' in result && (result.retryAfterMs === undefined || attempt === maxAttempts)) return result.outcome;
    const backoffMs = Math.min(firstDelayMs * 2 ** (attempt - 1), maxDelayMs) * (0.5 + Math.random() / 2);
    const delayMs = Math.max(backoffMs, result.retryAfterMs ?? 0);
    onWait?.(delayMs);
    await wait(delayMs, signal);
  }
}

interface Asked {
  readonly outcome: JoinOutcome;
  /** Only when it is worth asking again. */
  readonly retryAfterMs?: number;
}

async function ask({
  apiUrl,
  roomId,
  accessToken,
  body = {},
  signal,
  fetch: send = fetch,
}: JoinOptions): Promise<Asked> {
  const response = await send(`${apiUrl}/api/realtime/rooms/${encodeURIComponent(roomId)}/join`, {
    method: 'POST',
    headers: { authorization: `Bearer ${accessToken}`, 'content-type': 'application/json' },
    body: JSON.stringify(body),
    ...(signal !== undefined && { signal }),
  });
  if (response.ok) return { outcome: { kind: 'admitted', answer: (await response.json()) as JoinAnswer } };
  const outcome: JoinOutcome = { kind: 'refused', problem: await readProblem(response) };
  if (response.status !== 503) return { outcome };
  return { outcome, retryAfterMs: Number(response.headers.get('retry-after') ?? 0) * 1000 || 0 };
}

/** Whatever stands between may answer in its own way. */
async function readProblem(response: Response): Promise<JoinProblem> {
  const fallback = { status: response.status, code: 'unknown', title: `The service answered ${response.status}.` };
  if (!response.headers.get('content-type')?.includes('application/problem+json')) return fallback;
  return { ...fallback, ...((await response.json()) as Partial<JoinProblem>) };
}

function waitFor(delayMs: number, signal?: AbortSignal): Promise<void> {
  return new Promise((resolve, reject) => {
    const onAbort = () => {
      clearTimeout(timer);
      reject(signal?.reason);
    };
    const timer = setTimeout(() => {
      signal?.removeEventListener('abort', onAbort);
      resolve();
    }, delayMs);
    signal?.addEventListener('abort', onAbort, { once: true });
  });
}
