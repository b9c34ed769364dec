import { expect, test } from 'vitest';
import { tellWarnings } from './tell-warnings.ts';

test('what a broker refuses is told once, with its reason, whatever the reason comes as', () => {
  const told: string[] = [];
  const writeLog = tellWarnings((text) => void told.push(text));
  for (const correlationId of [1, 2]) {
    writeLog('warn', 'Response GroupCoordinator', { error: 'Not authorized to access group', correlationId });
    writeLog('error', 'the Kafka consumer starts anew', { error: new Error('no coordinator') });
    writeLog('info', 'of no interest', {});
  }
  writeLog('warn', 'nobody says why', {});
  expect(told).toEqual([
    'Response GroupCoordinator: Not authorized to access group\n',
    'the Kafka consumer starts anew: no coordinator\n',
    'nobody says why\n',
  ]);
});
