import { positionName } from '@realtime-service/contracts';
import {
  type DeadLetterSummary,
  findDeadLettersBetween,
  type Pool,
  summariseDeadLetters,
} from '@realtime-service/room-store';
import { asDeadLetter, type Decoded } from '@realtime-service/room-worker';

/** What the database refused even as a letter left no doubt. */
const asLetter = (decoded: Decoded, letter: DeadLetterSummary): Decoded =>
  decoded.record.content.kind === 'dead' && letter.reason !== 'unstorable'
    ? decoded
    : { ...decoded, record: asDeadLetter(decoded, letter) };

const hasGoneThrough = ({ stored }: Decoded, letter: DeadLetterSummary | undefined): boolean =>
  letter?.status === 'retried' &&
  letter.settledBy?.partition === stored.partition &&
  letter.settledBy.offset <= stored.offset;

/**
 * Records of a partition as they counted when the tables took them in, whatever this release reads in them: a dead
 * letter stays one where it stands, and a retry counts once one of its letter went through. So nothing counts by being
 * read anew that an operator has given up, or could still give up.
 */
export const asCounted = async (
  client: Pick<Pool, 'query'>,
  decoded: readonly Decoded[],
): Promise<readonly Decoded[]> => {
  const [first, last] = [decoded.at(0), decoded.at(-1)];
  if (first === undefined || last === undefined) return decoded;
  const retried = decoded.flatMap(({ record: { content } }) => (content.kind === 'retry' ? [content.letter] : []));
  const letters = [
    ...(await findDeadLettersBetween(client, first.stored, last.stored.offset)),
    ...(retried.length === 0 ? [] : await summariseDeadLetters(client, retried)),
  ];
  const letterAt = new Map(letters.map((letter) => [positionName(letter), letter]));
  return decoded.map((each) => {
    const letter = letterAt.get(positionName(each.stored));
    if (letter !== undefined) return asLetter(each, letter);
    const { content } = each.record;
    if (content.kind !== 'retry' || hasGoneThrough(each, letterAt.get(positionName(content.letter)))) return each;
    return { ...each, record: { ...each.record, content: { ...content, outcome: { kind: 'absent' } } } };
  });
};
