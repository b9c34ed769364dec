import { randomUUID } from 'node:crypto';
import { hostname } from 'node:os';
import { setTimeout as delay } from 'node:timers/promises';
import { createDuty, holdDuty, releaseDuty } from '@realtime-service/room-store';
import { CommandError, type Workplace } from './command.ts';

const duty = 'rebuild';
const dutySeconds = 10;
const lookEveryMs = 500;
const keepEveryMs = 3_000;

/** Holds the right to rebuild until `release`; `keep` renews it, and fails where somebody else has it by now. */
export const takeDuty = async ({ pool, terminal, ending }: Pick<Workplace, 'pool' | 'terminal' | 'ending'>) => {
  const holder = `${hostname()} ${process.pid} ${randomUUID()}`;
  const { hold, release } = createDuty(
    () => holdDuty(pool, duty, holder, dutySeconds),
    // It ends by itself; what was done is not to be told as a failure.
    () => releaseDuty(pool, duty, holder).catch(() => undefined),
  );
  const untilMs = performance.now() + (dutySeconds + 1) * 1000;
  let isTold = false;
  while (!(await hold())) {
    if (performance.now() > untilMs) throw new CommandError('Another rebuild, reset or confirm-partitions is running.');
    if (!isTold) terminal.tell(`Another one is running, or was killed a moment ago: looking for ${dutySeconds} s\n`);
    isTold = true;
    await delay(lookEveryMs, undefined, { signal: ending });
  }
  const keep = async (): Promise<void> => {
    if (!(await hold())) throw new CommandError('Another rebuild took over while this one was not heard of.');
  };
  return { keep, release };
};

/** Does what may not be done beside a rebuild. */
export const withDuty = async <T>(workplace: Workplace, work: () => Promise<T>): Promise<T> => {
  const { keep, release } = await takeDuty(workplace);
  const keeping = setInterval(() => void keep().catch(() => {}), keepEveryMs);
  try {
    return await work();
  } finally {
    clearInterval(keeping);
    await release();
  }
};
