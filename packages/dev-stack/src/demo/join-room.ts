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
  /** Opens the connection, by livekit-client for instance: part of what is repeated. */
  readonly connect?: (answer: JoinAnswer) => Promise<unknown>;
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
 * Asks for a LiveKit token and connects with it; both again while the answer is 503 or none at all, at LiveKit's door
 * too: before its first connection livekit-client repeats nothing. Waits grow from a quarter of a second to eight,
 * spread so that clients do not come back in step, and are never shorter than `Retry-After`. Every other answer is
 * final. Rejects when the last attempt was not answered, or when LiveKit refused.
 */
export async function joinRoom(options: JoinOptions): Promise<JoinOutcome> {
  const { signal, onWait, wait = waitFor } = options;
  for (let count = 1; ; count += 1) {
    const attempt = await attemptOnce(options);
    if (attempt.isFinal || count === maxAttempts) return attempt.conclude();
    const backoffMs = Math.min(firstDelayMs * 2 ** (count - 1), maxDelayMs) * (0.5 + Math.random() / 2);
    const delayMs = Math.max(backoffMs, attempt.retryAfterMs);
    onWait?.(delayMs);
    await wait(delayMs, signal);
  }
}

interface Attempt {
  readonly isFinal: boolean;
  readonly retryAfterMs: number;
  /** The outcome, or what was thrown. */
  conclude(): JoinOutcome;
}

async function attemptOnce(options: JoinOptions): Promise<Attempt> {
  try {
    const response = await ask(options);
    if (!response.ok) {
      const problem = await readProblem(response);
      const retryAfterMs = Number(response.headers.get('retry-after') ?? 0) * 1000 || 0;
      return { isFinal: response.status !== 503, retryAfterMs, conclude: () => ({ kind: 'refused', problem }) };
    }
    const answer = (await response.json()) as JoinAnswer;
    await options.connect?.(answer);
    return { isFinal: true, retryAfterMs: 0, conclude: () => ({ kind: 'admitted', answer }) };
  } catch (error) {
    const conclude = () => {
      throw error;
    };
    return { isFinal: options.signal?.aborted === true || isRefusal(error), retryAfterMs: 0, conclude };
  }
}

function ask({ apiUrl, roomId, accessToken, body = {}, signal, fetch: send = fetch }: JoinOptions): Promise<Response> {
  return send(`${apiUrl}/api/realtime/rooms/${encodeURIComponent(roomId)}/join`, {
    method: 'POST',
    headers: { authorization: `Bearer ${accessToken}`, 'content-type': 'application/json' },
    body: JSON.stringify(body),
    ...(signal !== undefined && { signal }),
  });
}

/** livekit-client's `ConnectionError` has the status with which LiveKit, or the gate before it, said no. */
function isRefusal(error: unknown): boolean {
  if (!(error instanceof Error) || !('status' in error) || typeof error.status !== 'number') return false;
  return error.status >= 400 && error.status < 500;
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
