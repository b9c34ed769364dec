import { expect, test, vi } from 'vitest';
import { systemClock } from './clock.ts';
import { createWorkerMetrics } from './metrics.ts';
import { notify } from './notify.ts';

const notice = { type: 'muted', trackSid: 'TR_1' } as const;

test.each<[outcome: string, sendData: () => Promise<void>]>([
  ['sent', async () => {}],
  ['failed', () => Promise.reject(new Error('LiveKit is away'))],
  ['late', () => new Promise(() => {})],
])(
  'a notice is counted as %s, holds nothing up for longer than 50 ms, and leaves no timer',
  async (outcome, sendData) => {
    const delay = vi.fn((_ms: number, signal?: AbortSignal) =>
      outcome === 'late' ? Promise.resolve() : systemClock.delay(60_000, signal),
    );
    const metrics = createWorkerMetrics();
    await notify({ livekit: { sendData }, clock: { ...systemClock, delay }, metrics }, { roomId: 'room-42' }, notice);
    expect((await metrics.notices.get()).values).toEqual([{ labels: { type: 'muted', outcome }, value: 1 }]);
    expect(delay).toHaveBeenCalledExactlyOnceWith(50, expect.objectContaining({ aborted: true }));
  },
);

test.each([
  ['one', { roomId: 'room-42', identity: 'u-7' }, { to: ['u-7'] }],
  ['all', { roomId: 'room-42' }, {}],
])('a notice is told to %s', async (_, whom, to) => {
  const sendData = vi.fn(async () => {});
  await notify({ livekit: { sendData }, clock: systemClock, metrics: createWorkerMetrics() }, whom, notice);
  expect(sendData).toHaveBeenCalledExactlyOnceWith('room-42', {
    topic: 'rt.notice',
    text: '{"type":"muted","trackSid":"TR_1"}',
    ...to,
  });
});
