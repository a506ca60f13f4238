"""Numbers, times, dates and everyday phrases in seven languages; numbers spelled by num2words.

A template's slots: {n} number, {s} small number, {t} time of day, {d} day of the month, {day} of
the week, {month}, {year}, {city}, {name}, {digits}. `python phrases.py fr` prints twenty.
"""

from __future__ import annotations

import random
import sys

from lexicon import words
from num2words import num2words

CITIES = {
    "es": "Madrid,Barcelona,Sevilla,Valencia,Bilbao,Lima,Bogotá,Buenos Aires,Santiago,Londres,"
    "París,"
    "Roma,Berlín,Lisboa,Moscú,Granada,Zaragoza,La Habana,Quito,Caracas",
    "fr": "Paris,Lyon,Marseille,Toulouse,Bordeaux,Lille,Nantes,Strasbourg,Nice,Bruxelles,Genève,"
    "Montréal,Londres,Madrid,Rome,Berlin,Rennes,Grenoble,Dijon,Lausanne",
    "de": "Berlin,Hamburg,München,Köln,Frankfurt,Stuttgart,Leipzig,Dresden,Wien,Zürich,Bern,Graz,"
    "Bremen,Hannover,Nürnberg,London,Paris,Rom,Madrid,Prag",
    "it": "Roma,Milano,Napoli,Torino,Firenze,Venezia,Bologna,Genova,Palermo,Bari,Verona,Pisa,"
    "Londra,"
    "Parigi,Madrid,Berlino,Trieste,Catania,Siena,Padova",
    "nl": "Amsterdam,Rotterdam,Utrecht,Den Haag,Groningen,Eindhoven,Leiden,Delft,Antwerpen,Gent,"
    "Brussel,Brugge,Londen,Parijs,Berlijn,Rome,Haarlem,Nijmegen",
    "cs": "Praha,Brno,Ostrava,Plzeň,Liberec,Olomouc,Zlín,Pardubice,Vídeň,Berlín,Londýn,Paříž",
    "ru": "Москва,Казань,Самара,Омск,Томск,Пермь,Рига,Минск,Киев,Одесса,Лондон,Париж,Берлин,Рим",
}
NAMES = {
    "es": "Ana Carlos Carmen José Lucía Manuel María Pedro Elena Javier Marta Pablo Sofía "
    "Diego Laura",
    "fr": "Anne Pierre Marie Jean Sophie Luc Camille Antoine Julie Nicolas Chloé Hugo Élise "
    "Paul Léa",
    "de": "Anna Thomas Sabine Peter Julia Michael Katrin Stefan Lena Jonas Ursula Karl Eva "
    "Hans Lukas",
    "it": "Anna Marco Giulia Paolo Francesca Luca Chiara Andrea Elena Matteo Sara Giovanni "
    "Lucia Dario",
    "nl": "Anna Jan Sanne Pieter Lotte Daan Emma Bram Femke Willem Julia Thijs Maaike Kees",
    "cs": "Anna Jan Eva Petr Jana Tomáš Lucie Pavel Hana Martin Tereza Ondřej Marie Karel",
    "ru": "Анна Иван Мария Пётр Ольга Сергей Елена Алексей Наталья Дмитрий Татьяна Андрей "
    "Юлия Павел",
}
DAYS = {
    "es": "lunes martes miércoles jueves viernes sábado domingo",
    "fr": "lundi mardi mercredi jeudi vendredi samedi dimanche",
    "de": "Montag Dienstag Mittwoch Donnerstag Freitag Samstag Sonntag",
    "it": "lunedì martedì mercoledì giovedì venerdì sabato domenica",
    "nl": "maandag dinsdag woensdag donderdag vrijdag zaterdag zondag",
    "cs": "pondělí úterý středa čtvrtek pátek sobota neděle",
    "ru": "понедельник вторник среда четверг пятница суббота воскресенье",
}
MONTHS = {
    "es": "enero febrero marzo abril mayo junio julio agosto septiembre octubre noviembre "
    "diciembre",
    "fr": "janvier février mars avril mai juin juillet août septembre octobre novembre décembre",
    "de": "Januar Februar März April Mai Juni Juli August September Oktober November Dezember",
    "it": "gennaio febbraio marzo aprile maggio giugno luglio agosto settembre ottobre novembre "
    "dicembre",
    "nl": "januari februari maart april mei juni juli augustus september oktober november december",
    "cs": "ledna února března dubna května června července srpna září října listopadu prosince",
    "ru": "января февраля марта апреля мая июня июля августа сентября октября ноября декабря",
}
TIMES = {
    "es": "las {s}|las {h} y {m}|las {h} y media|las {h} y cuarto|las {h} menos diez",
    "fr": "{h} heures|{h} heures {m}|{h} heures et demie|{h} heures et quart|{h} heures moins dix",
    "de": "{h} Uhr|{h} Uhr {m}|halb {h}|Viertel nach {h}|Viertel vor {h}|zehn nach {h}",
    "it": "le {h}|le {h} e {m}|le {h} e mezza|le {h} e un quarto|le {h} meno dieci",
    "nl": "{h} uur|half {h}|kwart over {h}|kwart voor {h}|tien over {h}",
    "cs": "{h} hodin|{h} hodin a {m} minut",
    "ru": "{h} часов|{h} часов {m} минут",
}
PHRASES = {
    "es": "{n}|{digits}|Mi número es {digits}|Son {t}|El tren sale a {t}|Nos vemos el {day} a {t}|"
    "Hoy es {day}, {d} de {month}|Nació en {year}|Cuesta {n} euros|Tengo {s} años|Página {n}|"
    "Me llamo {name}|Vivo en {city}|¿Dónde está {name}?|¿Qué tiempo hace en {city}?|Buenos días, "
    "{name}|Buenas noches, {name}|Muchas gracias, {name}|¿Cuánto cuesta el billete a {city}?|"
    "Pon una alarma a {t}|Recuérdame llamar a {name} el {day}|Hay {n} kilómetros hasta {city}|"
    "¿A qué hora llega el avión de {city}?|{name} y {name} viven en {city}|La habitación {n}, por "
    "favor|Quisiera una mesa para {s} personas|¿Cómo estás, {name}?|Hasta mañana, {name}|La "
    "reunión es el {d} de {month}|Enciende la luz de la cocina|Apaga la televisión|Pon música",
    "fr": "{n}|{digits}|Mon numéro est le {digits}|Il est {t}|Le train part à {t}|On se voit {day} "
    "à {t}|Aujourd'hui c'est {day}, le {d} {month}|Elle est née en {year}|Cela coûte {n} "
    "euros|J'ai "
    "{s} ans|Page {n}|Je m'appelle {name}|J'habite à {city}|Où est {name}?|Quel temps fait-il à "
    "{city}?|Bonjour, {name}|Bonne nuit, {name}|Merci beaucoup, {name}|Combien coûte un "
    "billet pour "
    "{city}?|Réveille-moi à {t}|Rappelle-moi d'appeler {name} {day}|Il y a {n} kilomètres jusqu'à "
    "{city}|À quelle heure arrive l'avion de {city}?|{name} et {name} habitent à {city}|La chambre "
    "{n}, s'il vous plaît|Je voudrais une table pour {s} personnes|Comment vas-tu, {name}?|À "
    "demain, "
    "{name}|La réunion est le {d} {month}|Allume la lumière de la cuisine|Éteins la télévision",
    "de": "{n}|{digits}|Meine Nummer ist {digits}|Es ist {t}|Der Zug fährt um {t}|Wir sehen uns am "
    "{day} um {t}|Heute ist {day}|Sie wurde im Jahr {year} geboren|Das kostet {n} Euro|Ich bin {s} "
    "Jahre alt|Seite {n}|Ich heiße {name}|Ich wohne in {city}|Wo ist {name}?|Wie ist das Wetter in "
    "{city}?|Guten Morgen, {name}|Gute Nacht, {name}|Vielen Dank, {name}|Was kostet eine Fahrkarte "
    "nach {city}?|Weck mich um {t}|Erinnere mich daran, {name} am {day} anzurufen|Es sind {n} "
    "Kilometer bis {city}|Wann kommt der Flug aus {city} an?|{name} und {name} wohnen in {city}|"
    "Zimmer {n}, bitte|Einen Tisch für {s} Personen, bitte|Wie geht es dir, {name}?|Bis morgen, "
    "{name}|Im {month} fahren wir nach {city}|Schalte das Licht in der Küche ein|Spiel etwas Musik",
    "it": "{n}|{digits}|Il mio numero è {digits}|Sono {t}|Il treno parte alle {s}|Ci vediamo {day}|"
    "Oggi è {day}, {d} {month}|È nata nel {year}|Costa {n} euro|Ho {s} anni|Pagina {n}|Mi chiamo "
    "{name}|Abito a {city}|Dov'è {name}?|Che tempo fa a {city}?|Buongiorno, {name}|Buonanotte, "
    "{name}|Grazie mille, {name}|Quanto costa un biglietto per {city}?|Svegliami alle {s}|"
    "Ricordami "
    "di chiamare {name} {day}|Mancano {n} chilometri a {city}|A che ora arriva il volo da {city}?|"
    "{name} e {name} abitano a {city}|La camera {n}, per favore|Vorrei un tavolo per {s} persone|"
    "Come stai, {name}?|A domani, {name}|La riunione è il {d} {month}|Accendi la luce in cucina",
    "nl": "{n}|{digits}|Mijn nummer is {digits}|Het is {t}|De trein vertrekt om {t}|Tot {day} "
    "om {t}|"
    "Vandaag is het {day} {d} {month}|Zij is geboren in {year}|Dat kost {n} euro|Ik ben {s} jaar|"
    "Bladzijde {n}|Ik heet {name}|Ik woon in {city}|Waar is {name}?|Wat voor weer is het in "
    "{city}?|"
    "Goedemorgen, {name}|Welterusten, {name}|Dank je wel, {name}|Hoeveel kost een kaartje naar "
    "{city}?|Maak me wakker om {t}|Bel {name} op {day}|Het is {n} kilometer naar {city}|{name} en "
    "{name} wonen in {city}|Een tafel voor {s} personen, alstublieft|Hoe gaat het, {name}?|Doe het "
    "licht in de keuken aan|De vergadering is op {d} {month}",
    "cs": "{n}|{digits}|Moje číslo je {digits}|Je {t}|Dnes je {day}|Narodila se v roce {year}|"
    "Stojí to "
    "{n} korun|Je mi {s} let|Strana {n}|Jmenuji se {name}|Kde je {name}?|Dobré ráno|Dobrou noc|"
    "Děkuji vám|{name} a {name} jsou doma|Pokoj číslo {n}, prosím|Jak se máš?|Na shledanou|"
    "Kolik to "
    "stojí?|Rozsviťte v kuchyni|Zítra přijede {name}|{city} je krásné město",
    "ru": "{n}|{digits}|Мой номер {digits}|Сейчас {t}|Сегодня {day}|Это стоит {n} рублей|Мне "
    "{s} лет|"
    "Страница {n}|Меня зовут {name}|Где {name}?|Доброе утро, {name}|Спокойной ночи, {name}|Большое "
    "спасибо|{name} и {name} дома|Комната номер {n}|Как дела, {name}?|До свидания|Сколько это "
    "стоит?|Включи свет на кухне|Завтра приедет {name}|{city} большой город|Город {city} далеко",
}


def spell(n: int, language: str) -> str:
    """A number in words, without hyphens that no one hears as such."""
    return num2words(n, lang=language).replace("\xad", "").replace(" ,", ",")


def time_of_day(language: str, rng: random.Random) -> str:
    hour, minute = rng.randint(2, 12), rng.randint(5, 59)
    template = rng.choice(TIMES[language].split("|"))
    return template.format(
        h=spell(hour, language), m=spell(minute, language), s=spell(hour, language)
    )


def phrase(language: str, rng: random.Random) -> str:
    """A sentence with a capital and a final mark."""
    template = rng.choice(PHRASES[language].split("|"))
    digits = " ".join(spell(rng.randint(0, 9), language) for _ in range(rng.choice([3, 4, 5])))
    names = words(NAMES[language])
    first = rng.choice(names)
    parts = template.split("{name}")
    template = first.join(parts[:2]) + "".join(rng.choice(names) + part for part in parts[2:])
    text = template.format(
        n=spell(rng.randint(0, rng.choice([20, 99, 999, 9999])), language),
        s=spell(rng.randint(2, 60), language),
        d=spell(rng.randint(2, 30), language),
        year=spell(rng.randint(1850, 2050), language),
        digits=digits,
        t=time_of_day(language, rng),
        day=rng.choice(words(DAYS[language])),
        month=rng.choice(words(MONTHS[language])),
        city=rng.choice(words(CITIES[language], ",")),
    )
    text = text.replace("¿", "")
    text = text[0].upper() + text[1:]
    return text if text[-1] in ".?!" else text + "."


if __name__ == "__main__":
    for i in range(20):
        print(phrase(sys.argv[1] if len(sys.argv) > 1 else "fr", random.Random(i)))
