import type { Room } from 'livekit-client';
import type { Person } from '../demo-settings.ts';
import { textElement, userIdOf } from './tiles.ts';

type Decide = (person: Person, isMember: boolean) => Promise<void>;

/** The host's list: who is here can be removed, whoever is not can be let (back) in. Oneself is left out. */
export function showMembers(list: HTMLUListElement, room: Room, people: readonly Person[], decide: Decide): void {
  const present = new Set([...room.remoteParticipants.values()].map(userIdOf));
  const own = userIdOf(room.localParticipant);
  const others = people.filter(({ userId }) => userId !== own);
  list.replaceChildren(...others.map((person) => memberRow(person, present.has(person.userId), decide)));
}

function memberRow(person: Person, isPresent: boolean, decide: Decide): HTMLLIElement {
  const row = document.createElement('li');
  row.dataset['person'] = person.name;
  const button = document.createElement('button');
  button.type = 'button';
  button.className = isPresent ? 'remove' : 'let-in';
  button.textContent = isPresent ? 'Remove' : 'Let back in';
  button.onclick = () => void decide(person, !isPresent);
  row.append(
    textElement('span', 'name', person.displayName),
    textElement('span', 'role', person.role),
    textElement('span', 'presence', isPresent ? 'in the call' : 'not in the call'),
    button,
  );
  return row;
}
